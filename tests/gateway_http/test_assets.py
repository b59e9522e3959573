"""The chat page's files: names, encodings, caching; and what the page promises of itself."""

from __future__ import annotations

import asyncio
import gzip
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import brotli
import httpx
import pytest
import zstandard
from litestar import HttpMethod, Litestar, Request, Response, route

from gateway_http import assets
from gateway_http.assets import FOLDER, Page, best_encoding, read_page, wants_page

DECODERS = {"br": brotli.decompress, "zstd": zstandard.ZstdDecompressor().decompress, "gzip": gzip.decompress}
FILES = {
    "index.html": '<link href="./a.css"><script src="./main.js"></script><p>"./a"</p>',
    "main.js": 'import { x } from "./x.js"; const face = new URL("./face.svg", import.meta.url);',
    "x.js": "export const x = 1;",
    "a.css": "p { background: url('./face.svg') }",
    "face.svg": "<svg/>",
}


def folder_with(path: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (path / name).write_text(text)
    return path


def named(page: Page, stem: str) -> str:
    return next(name for name in page.assets if name.startswith(f"{stem}."))


@pytest.fixture(scope="module")
def page() -> Page:
    return read_page()


@pytest.fixture
async def http(page: Page) -> AsyncIterator[httpx.AsyncClient]:
    @route("/", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def document(request: Request) -> Response[bytes]:
        return await page.document.respond(request)

    app = Litestar([document, page.asset_handler()], openapi_config=None, logging_config=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ion") as client:
        yield client


async def raw(http: httpx.AsyncClient, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer and its body as it was sent."""
    async with http.stream("GET", path, headers={"accept-encoding": "identity"} | headers) as response:
        return response, b"".join([piece async for piece in response.aiter_raw()])


class TestNames:
    def test_files_load_each_other_by_their_names(self, tmp_path: Path) -> None:
        page = read_page(folder_with(tmp_path, FILES))
        body = page.assets[named(page, "main")].body.decode()
        assert f'"./{named(page, "x")}"' in body
        assert f'"./{named(page, "face")}"' in body
        assert f"'./{named(page, 'face')}'" in page.assets[named(page, "a")].body.decode()
        assert f'href="./assets/{named(page, "a")}"' in page.document.body.decode()
        assert f'src="./assets/{named(page, "main")}"' in page.document.body.decode()

    def test_a_name_tells_content_and_that_of_all_it_loads(self, tmp_path: Path) -> None:
        before = read_page(folder_with(tmp_path, FILES))
        after = read_page(folder_with(tmp_path, FILES | {"x.js": "export const x = 2;"}))
        assert {name for name in before.assets if name in after.assets} == {named(before, "a"), named(before, "face")}

    def test_unknown_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"main\.js loads gone\.js"):
            read_page(folder_with(tmp_path, FILES | {"main.js": 'import "./gone.js";'}))

    def test_circle_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="circle"):
            read_page(folder_with(tmp_path, FILES | {"x.js": 'import "./main.js";'}))


class TestAssets:
    async def test_kept_for_ever_under_a_name(self, page: Page, http: httpx.AsyncClient) -> None:
        name = named(page, "main")
        response, body = await raw(http, f"/assets/{name}")
        assert response.status_code == 200
        assert body == page.assets[name].body
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["vary"] == "Accept-Encoding"

    @pytest.mark.parametrize(
        ("stem", "media_type"),
        [("main", "text/javascript; charset=utf-8"), ("base", "text/css; charset=utf-8"), ("lua", "image/svg+xml")],
    )
    async def test_types(self, page: Page, http: httpx.AsyncClient, stem: str, media_type: str) -> None:
        response, _ = await raw(http, f"/assets/{named(page, stem)}")
        assert response.headers["content-type"] == media_type

    @pytest.mark.parametrize("name", ["main.js", "main.00000000.js", "index.html", "..%2fassets.py"])
    async def test_other_names_are_not_there(self, http: httpx.AsyncClient, name: str) -> None:
        assert (await http.get(f"/assets/{name}")).status_code == 404

    async def test_head(self, page: Page, http: httpx.AsyncClient) -> None:
        response = await http.head(f"/assets/{named(page, 'main')}")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/javascript; charset=utf-8"

    @pytest.mark.parametrize("encoding", DECODERS)
    async def test_encodings(self, page: Page, http: httpx.AsyncClient, encoding: str) -> None:
        name = named(page, "english")
        response, body = await raw(http, f"/assets/{name}", **{"accept-encoding": encoding})
        assert response.headers["content-encoding"] == encoding
        assert len(body) == int(response.headers["content-length"]) < len(page.assets[name].body) / 2
        assert DECODERS[encoding](body) == page.assets[name].body

    async def test_compressed_once_and_not_in_the_event_loop(
        self, http: httpx.AsyncClient, page: Page, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        threads = []
        compress = assets._COMPRESSORS["br"]
        monkeypatch.setitem(
            assets._COMPRESSORS, "br", lambda body: threads.append(threading.current_thread()) or compress(body)
        )
        path = f"/assets/{named(page, 'korean')}"
        await asyncio.gather(*(raw(http, path, **{"accept-encoding": "br"}) for _ in range(5)))
        assert len(threads) == 1
        assert threads[0] is not threading.main_thread()

    def test_reading_compresses_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for encoding in DECODERS:
            monkeypatch.setitem(assets._COMPRESSORS, encoding, lambda _body: pytest.fail("compressed at the start"))
        read_page()


class TestDocument:
    async def test_asked_for_anew_and_told_unchanged(self, http: httpx.AsyncClient) -> None:
        first, _ = await raw(http, "/", **{"accept-encoding": "br"})
        assert first.headers["cache-control"] == "no-cache"
        assert first.headers["content-type"] == "text/html; charset=utf-8"
        assert first.headers["vary"] == "Accept, Accept-Encoding"
        again, body = await raw(http, "/", **{"if-none-match": f'"other", {first.headers["etag"]}'})
        assert (again.status_code, body) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]
        changed, _ = await raw(http, "/", **{"if-none-match": '"other"'})
        assert changed.status_code == 200

    async def test_policy_allows_own_files_alone(self, http: httpx.AsyncClient) -> None:
        response, _ = await raw(http, "/")
        policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
        assert policy.pop("default-src") == "'none'"
        assert policy.pop("require-trusted-types-for") == "'script'"
        assert policy.pop("trusted-types") == "'none'"
        assert set(policy.values()) == {"'self'", "'none'"}

    def test_loads_every_module_at_once(self, page: Page) -> None:
        loaded = set(re.findall(r'(?:href|src)="\./assets/([^"]+\.js)"', page.document.body.decode()))
        assert loaded == {name for name in page.assets if name.endswith(".js")}

    def test_has_no_script_style_or_address_that_the_policy_forbids(self) -> None:
        for file in FOLDER.iterdir():
            text = file.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
            assert not re.search(r"https?://|innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text), file
        document = (FOLDER / "index.html").read_text("utf-8")
        assert not re.search(r"<style|<script>|\sstyle=|\son\w+=", document)

    def test_both_languages_have_the_same_texts(self) -> None:
        keys = [
            re.findall(r"^  (\w+):", (FOLDER / name).read_text("utf-8"), re.M) for name in ("english.js", "korean.js")
        ]
        assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("accept_encoding", "chosen"),
    [
        ("gzip, deflate, br, zstd", "br"),
        ("zstd;q=0.1, gzip;q=1", "zstd"),
        ("br;q=0, gzip", "gzip"),
        ("*", "br"),
        ("br;q=0, *;q=0.5", "zstd"),
        ("deflate, identity", None),
        ("", None),
        ("br;q=nonsense", None),
    ],
)
def test_best_encoding(accept_encoding: str, chosen: str | None) -> None:
    assert best_encoding(accept_encoding) == chosen


@pytest.mark.parametrize(
    ("accept", "wants"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html", True),
        ("*/*", False),
        ("application/json", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0", False),
        ("", False),
    ],
)
def test_wants_page(accept: str, wants: bool) -> None:
    assert wants_page(accept) is wants
