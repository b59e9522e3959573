"""A server behind a network that drops connections without a word: a relay in front of a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CHUNK_BYTES = 1 << 16


class SilentRelay:
    """To 127.0.0.1:`port`. After `silence`, connections made before it lead nowhere; new ones work."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self._server_port = port
        self._silences = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def silence(self) -> None:
        self._silences += 1

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        for pump in (self._pump(reader, server_writer), self._pump(server_reader, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        silences = self._silences
        while chunk := await reader.read(_CHUNK_BYTES):
            if silences == self._silences:
                writer.write(chunk)
        writer.close()


@asynccontextmanager
async def silent_relay(port: int) -> AsyncIterator[SilentRelay]:
    """Until the block ends."""
    relay = SilentRelay(port)
    server = await asyncio.start_server(relay._relay, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        for task in tuple(relay._tasks):
            task.cancel()
        await asyncio.gather(*relay._tasks, return_exceptions=True)
