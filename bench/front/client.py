"""A lean HTTP client to this machine alone: keep-alive, one request at a time a connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 60.0


@dataclass
class Connection:
    """One connection; `post` may be called again once it has returned."""

    host: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def post(self, path: str, payload: dict[str, Any]) -> tuple[float, dict[str, Any]]:
        """Seconds to the whole answer, and the answer. Raises ValueError for a status other than 200."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            started = time.perf_counter()
            self._send(path, payload, "application/json")
            length = await self._read_head()
            body = await self.reader.readexactly(length)
            return time.perf_counter() - started, json.loads(body)

    async def open_stream(self, path: str, payload: dict[str, Any], until: bytes) -> float:
        """Seconds until a line of the event stream begins with `until`; the stream stays open."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            started = time.perf_counter()
            self._send(path, payload, "text/event-stream")
            await self._read_head()
            while not (await self.reader.readuntil(b"\n")).startswith(until):
                pass
            return time.perf_counter() - started

    def _send(self, path: str, payload: dict[str, Any], accept: str) -> None:
        body = json.dumps(payload, ensure_ascii=False).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self.host}\r\nAccept: {accept}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.writer.write(head.encode() + body)

    async def _read_head(self) -> int:
        """The length of the body, 0 where it is not told."""
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if status.split()[1] != "200":
            raise ValueError(status)
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        return int(headers.get("content-length", 0))


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    parts = urlsplit(url)
    if parts.hostname != "127.0.0.1" or parts.port is None:
        raise ValueError("load goes to this machine alone")
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield Connection(parts.netloc, reader, writer)
    finally:
        writer.close()
