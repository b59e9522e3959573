"""A persona router that does as it is told, and a way to it that can be cut."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import grpc
import grpc.aio
from google.rpc import status_pb2

from chassis.errors import STATUS_DETAILS_KEY, IonError
from chassis.server import new_server
from ion.router.v1 import router_pb2, router_pb2_grpc

ROUTED = router_pb2.Routing(persona="Lua", resonance_key="calm-medium-inquiry", confidence=0.5)


@dataclass
class Seen:
    """One call as it came in."""

    request: Any
    metadata: dict[str, str]
    remaining_seconds: float
    at: float


class ScriptedRouter(router_pb2_grpc.PersonaRouterServiceServicer):
    """Each call follows the next line of the script, or else is answered: an IonError fails it, a status or its code
    fails it without a word of ION's; in a list, for a stream, they come after so many texts."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.script: deque[Any] = deque()
        self.calls: list[Seen] = []

    async def Chat(self, request: Any, context: grpc.aio.ServicerContext) -> router_pb2.ChatResponse:
        await self._follow(self._next(request, context), context)
        return router_pb2.ChatResponse(content="fine", routing=ROUTED, session_id=request.session_id)

    async def ChatStream(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        line = self._next(request, context)
        yield router_pb2.ChatStreamResponse(routed=router_pb2.Routed(routing=ROUTED))
        for text in line if isinstance(line, list) else [line, "fi", "ne"]:
            if isinstance(text, str):
                yield router_pb2.ChatStreamResponse(text=text)
            else:
                await self._follow(text, context)
        yield router_pb2.ChatStreamResponse(done=router_pb2.ChatDone(session_id=request.session_id))

    async def DeleteSession(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        await self._follow(self._next(request, context), context)
        return router_pb2.DeleteSessionResponse()

    async def ListPersonas(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        """Not part of the script: the gateway asks it too, to see how things are."""
        return router_pb2.ListPersonasResponse()

    async def ExportSession(self, request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        line = self._next(request, context)
        for number in range(5):
            # So long that some are through before the end, however they are compressed on their way.
            turn = router_pb2.Turn(turn_id=number, message=random.randbytes(100_000).hex())
            yield router_pb2.ExportSessionResponse(turn=turn)
        await self._follow(line, context)

    def _next(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        metadata = dict(context.invocation_metadata())
        self.calls.append(Seen(request, metadata, context.time_remaining(), time.monotonic()))
        return self.script.popleft() if self.script else None

    async def _follow(self, line: Any, context: grpc.aio.ServicerContext) -> None:
        if isinstance(line, IonError):
            raise line
        if isinstance(line, grpc.StatusCode):
            await context.abort(line, "words of nobody's")
        if isinstance(line, status_pb2.Status):
            code = next(code for code in grpc.StatusCode if code.value[0] == line.code)
            await context.abort(code, line.message, ((STATUS_DETAILS_KEY, line.SerializeToString()),))


@asynccontextmanager
async def serving(router: ScriptedRouter) -> AsyncIterator[str]:
    """The router on a port; yields `host:port`."""
    server = new_server()
    router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(router, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


class Way:
    """Relays connections to `target`. `answers_to_lose` ends that many connections where a reply would come; `frozen`
    holds back all that comes."""

    def __init__(self, target: str, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._tls = tls
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.frozen = False
        self.answers_to_lose = 0
        self.address = f"127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self._tls)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        host, port = self._target.rsplit(":", 1)
        there_reader, there_writer = await asyncio.open_connection(host, int(port))
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(reader, there_writer))
                both.create_task(self._carry_back(there_reader, writer))
        except* (ConnectionError, EOFError, asyncio.CancelledError):
            pass  # what ends it is no defect, and asyncio would log it as one
        finally:
            for end in (writer, there_writer):
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        raise EOFError

    async def _carry_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.answers_to_lose and b"fine" in data:
                self.answers_to_lose -= 1
                raise EOFError
            while self.frozen:
                await asyncio.sleep(0.02)
            with suppress(ConnectionError):
                writer.write(data)
                await writer.drain()
        raise EOFError
