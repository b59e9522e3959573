"""The chat page and what it loads: named by content, so that a browser may keep each for ever; compressed once."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import brotli
import zstandard
from litestar import HttpMethod, Request, Response, route
from litestar.datastructures import State
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway_http.negotiation import qualities

FOLDER: Final = Path(__file__).parent / "page"
DOCUMENT: Final = "index.html"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_DOCUMENT_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "Accept, Accept-Encoding",
}
_ASSET_HEADERS: Final = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
_MEDIA_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
# Page files name each other as "./name.ext", in quotes, in every language they are written in.
_REFERENCE: Final = re.compile(r"""(?<=["'])\./([\w-]+\.[a-z]+)(?=["'])""")
_HASH_CHARACTERS: Final = 8
# In the order of preference: the smallest first.
_COMPRESSORS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "br": lambda body: brotli.compress(body, quality=11),
    "zstd": lambda body: zstandard.ZstdCompressor(level=19).compress(body),
    "gzip": lambda body: gzip.compress(body, compresslevel=9, mtime=0),
}


@dataclass
class Asset:
    """One file as it is served. Each encoding is made when it is first asked for, in a thread."""

    name: str
    body: bytes
    headers: dict[str, str]
    etag: str = field(init=False)
    _encoded: dict[str, bytes] = field(default_factory=dict)
    _encoding: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        # Weak: the same for every encoding of the same bytes.
        self.etag = f'W/"{_digest(self.body)}"'

    async def respond(self, request: Request[Any, Any, Any]) -> Response[bytes]:
        """200, or 304 to a browser that has it. The server leaves out the body of an answer to HEAD."""
        headers = self.headers | {"ETag": self.etag}
        if _knows(request.headers.get("if-none-match", ""), self.etag):
            return Response(b"", status_code=304, headers=headers)
        encoding = best_encoding(request.headers.get("accept-encoding", ""))
        if encoding:
            headers["Content-Encoding"] = encoding
        return Response(
            await self._as(encoding), headers=headers, media_type=_MEDIA_TYPES[Path(self.name).suffix], status_code=200
        )

    async def _as(self, encoding: str | None) -> bytes:
        if encoding is None:
            return self.body
        async with self._encoding:
            if encoding not in self._encoded:
                self._encoded[encoding] = await asyncio.to_thread(_COMPRESSORS[encoding], self.body)
        return self._encoded[encoding]


@dataclass(frozen=True)
class Page:
    """The document at `/`, and the assets by the names that it loads them by."""

    document: Asset
    assets: dict[str, Asset]

    def asset_handler(self) -> HTTPRouteHandler:
        """`/assets/{name}`."""

        @route("/assets/{name:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD], include_in_schema=False)
        async def asset(name: FromPath[str], request: Request[Any, Any, State]) -> Response[bytes]:
            found = self.assets.get(name)
            if found is None:
                raise NotFoundException
            return await found.respond(request)

        return asset


def read_page(folder: Path = FOLDER) -> Page:
    """Reads all files of the folder. Raises ValueError where they name files that are not there, or go in circles."""
    files = {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.suffix in _MEDIA_TYPES}
    naming = _Naming(files)
    for name in files.keys() - {DOCUMENT}:
        naming.name(name)
    text = naming.rewrite(DOCUMENT, prefix="./assets/")
    return Page(Asset(DOCUMENT, text.encode(), _DOCUMENT_HEADERS), naming.assets)


class _Naming:
    """Gives each file its name: a hash over the text in which the files it loads have theirs."""

    def __init__(self, files: dict[str, str]) -> None:
        self.assets: dict[str, Asset] = {}
        self._files = files
        self._names: dict[str, str] = {}
        self._open: list[str] = []

    def name(self, file: str) -> str:
        if file not in self._names:
            body = self.rewrite(file, prefix="./").encode()
            stem, _, extension = file.rpartition(".")
            named = f"{stem}.{_digest(body)}.{extension}"
            self._names[file] = named
            self.assets[named] = Asset(named, body, _ASSET_HEADERS)
        return self._names[file]

    def rewrite(self, file: str, *, prefix: str) -> str:
        if file in self._open:
            raise ValueError(f"page files load each other in a circle: {' -> '.join([*self._open, file])}")
        self._open.append(file)
        text = _REFERENCE.sub(lambda found: prefix + self._named(found[1], by=file), self._files[file])
        self._open.pop()
        return text

    def _named(self, file: str, *, by: str) -> str:
        if file not in self._files:
            raise ValueError(f"{by} loads {file}, which is not a file of the page")
        return self.name(file)


def wants_page(accept: str) -> bool:
    """Whether an Accept header is a browser's: it names HTML, and JSON not before it."""
    accepted = qualities(accept)
    html = accepted.get("text/html", 0.0)
    return html > 0 and html >= accepted.get("application/json", 0.0)


def best_encoding(accept_encoding: str) -> str | None:
    """The smallest of the encodings that are accepted; None: as it is."""
    accepted = qualities(accept_encoding)
    others = accepted.get("*", 0.0)
    return next((name for name in _COMPRESSORS if accepted.get(name, others) > 0), None)


def _knows(if_none_match: str, etag: str) -> bool:
    """By the weak comparison, which is meant for this header."""
    known = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:_HASH_CHARACTERS]
