"""The public keys of whoever signs tokens, from a file or a URL, kept up to date in the background."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from pathlib import Path
from typing import Any, Final, Protocol

import httpx
import jwt

from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason

REFRESH_SECONDS: Final = 300.0
RETRY_SECONDS: Final = 10.0  # after a failure; and the least time between two looks for a key that is not known
FILE_SECONDS: Final = 1.0  # between two looks at a file
FETCH_SECONDS: Final = 5.0
MAX_BYTES: Final = 1 << 20
# By type and curve: the only algorithms that tokens may be signed with.
ALGORITHMS: Final[Mapping[tuple[str, str | None], str]] = {("RSA", None): "RS256", ("EC", "P-256"): "ES256"}
MIN_RSA_BITS: Final = 2048

_log = logging.getLogger(__name__)
logging.getLogger("httpx").setLevel(logging.WARNING)  # it would say of each fetch that there was one


class BadKeys(Exception):
    """What should be a JSON Web Key Set is none, or has no key that may be used."""


class KeySet:
    """Keys by their id."""

    def __init__(self, keys: Sequence[jwt.PyJWK] = ()) -> None:
        self._keys = keys

    @classmethod
    def parse(cls, data: bytes) -> KeySet:
        """Raises BadKeys."""
        try:
            described = json.loads(data)["keys"]
            keys = [key for item in described if isinstance(item, dict) and (key := _usable(item))]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BadKeys("no JSON Web Key Set") from error
        if not keys:
            raise BadKeys("no key for RS256 or ES256")
        return cls(keys)

    def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of this id; a token that names none is for the only key of its algorithm."""
        suited = [key for key in self._keys if key.algorithm_name == algorithm]
        if kid is None:
            return suited[0] if len(suited) == 1 else None
        return next((key for key in suited if key.key_id == kid), None)

    def __bool__(self) -> bool:
        return bool(self._keys)


def _usable(described: dict[str, Any]) -> jwt.PyJWK | None:
    """None for keys that are for something else, or too weak."""
    algorithm = ALGORITHMS.get((described.get("kty", ""), described.get("crv")))
    if algorithm is None or described.get("alg", algorithm) != algorithm or described.get("use", "sig") != "sig":
        return None
    try:
        key = jwt.PyJWK(described, algorithm)
    except jwt.PyJWTError:
        return None
    return None if algorithm == "RS256" and key.key.key_size < MIN_RSA_BITS else key


class Source(Protocol):
    """Where keys come from."""

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """None where there is no such key. Raises IonError where no keys could be had since the start."""
        ...

    async def close(self) -> None: ...


class FileKeys:
    """Keys of a file; what it is replaced by holds a second later. One that cannot be read changes nothing."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises BadKeys, OSError."""
        self._path = path
        self._clock = clock
        self._seen = self._state()
        self._keys = KeySet.parse(path.read_bytes())
        self._looked_at = clock()

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        if self._clock() - self._looked_at >= FILE_SECONDS:
            self._looked_at = self._clock()
            await asyncio.to_thread(self._look)
        return self._keys.find(kid, algorithm)

    async def close(self) -> None:
        """Holds nothing."""

    def _look(self) -> None:
        try:
            state = self._state()
            if state != self._seen:
                self._seen = state
                self._keys = KeySet.parse(self._path.read_bytes())
                _log.info("the keys that sign tokens have changed")
        except (OSError, BadKeys) as error:
            _say_kept(error)

    def _state(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


class UrlKeys:
    """Keys that are fetched every five minutes, and at once for a token whose key is not known, which may be new. The
    old ones stay as long as the URL is away."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        # What loopback serves is not behind the machine's proxy.
        self._client = httpx.AsyncClient(timeout=FETCH_SECONDS, trust_env=url.startswith("https:"))
        self._keys = KeySet()
        self._asked_at = float("-inf")
        self._is_away = False
        self._fetching: asyncio.Task[None] | None = None
        self._keeping = asyncio.create_task(self._keep_fresh())

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        key = self._keys.find(kid, algorithm)
        if key is None and (self._fetching or self._clock() - self._asked_at >= RETRY_SECONDS):
            await self._fetch()
            key = self._keys.find(kid, algorithm)
        if not self._keys:
            raise IonError(
                Reason.REASON_DATABASE_UNAVAILABLE,
                "The keys that sign tokens cannot be fetched.",
                retry_after_seconds=RETRY_SECONDS,
            )
        return key

    async def close(self) -> None:
        tasks = [task for task in (self._keeping, self._fetching) if task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    async def _keep_fresh(self) -> None:
        while True:
            await self._fetch()
            await asyncio.sleep(RETRY_SECONDS if self._is_away else REFRESH_SECONDS)

    async def _fetch(self) -> None:
        """All who ask meanwhile wait for the same answer, and any of them may leave."""
        if self._fetching is None:
            self._asked_at = self._clock()
            self._fetching = asyncio.create_task(self._ask(), context=Context())  # nobody's in particular
        await asyncio.shield(self._fetching)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                self._keys = KeySet.parse(await self._read())
            self._is_away = False
        except (httpx.HTTPError, OSError, BadKeys) as error:
            if not self._is_away:
                _say_kept(error)
            self._is_away = True
        finally:
            self._fetching = None

    async def _read(self) -> bytes:
        """No more than MAX_BYTES of it."""
        data = bytearray()
        async with self._client.stream("GET", self._url, headers={"Accept": "application/json"}) as response:
            response.raise_for_status()
            async for piece in response.aiter_bytes():
                data += piece
                if len(data) > MAX_BYTES:
                    raise BadKeys("too large")
        return bytes(data)


def _say_kept(error: Exception) -> None:
    _log.warning("the keys that sign tokens cannot be read; the old ones hold", extra={"cause": type(error).__name__})
