"""The HTTP gateway on a real port, in front of a router that the test scripts, over real gRPC."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import httpx
import uvicorn
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2_grpc

from chassis.caller import Door, OpenDoor
from chassis.channel import open_channel
from chassis.server import new_server
from chassis.trust import EverybodyIsTrusted
from gateway_http.app import build_app
from gateway_http.health import HealthMonitor
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings
from ion.router.v1 import router_pb2, router_pb2_grpc

UNARY = ("Chat", "Route", "ListPersonas", "GetPersona", "ListSessions", "GetSession", "ListTurns", "DeleteSession")
STREAMS = ("ChatStream", "ExportSession")


@dataclass
class ScriptedRouter(router_pb2_grpc.PersonaRouterServiceServicer):
    """Each method answers with what `script` has for it: a message, several for a stream, an exception to raise, or an
    async generator function of the request. Requests are kept by method."""

    script: dict[str, Any] = field(default_factory=dict)
    requests: dict[str, list[Any]] = field(default_factory=dict)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        for name in UNARY:
            setattr(self, name, self._unary(name))
        for name in STREAMS:
            setattr(self, name, self._stream(name))

    def reset(self) -> None:
        self.script.clear()
        self.requests.clear()
        self.cancelled.clear()

    def _unary(self, name: str) -> Callable[..., Any]:
        async def answer(request: Message, context: grpc.aio.ServicerContext) -> Any:
            self.requests.setdefault(name, []).append(request)
            return await anext(self._messages(name, request))

        return answer

    def _stream(self, name: str) -> Callable[..., Any]:
        async def answer(request: Message, context: grpc.aio.ServicerContext) -> AsyncGenerator[Any, None]:
            self.requests.setdefault(name, []).append(request)
            async for message in self._messages(name, request):
                yield message

        return answer

    async def _messages(self, name: str, request: Message) -> AsyncGenerator[Any, None]:
        scripted = self.script[name]
        try:
            if callable(scripted):
                async for message in scripted(request):
                    yield message
            else:
                for message in scripted if isinstance(scripted, list) else [scripted]:
                    if isinstance(message, Exception):
                        raise message
                    yield message
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def forever(*_: Any) -> AsyncGenerator[Any, None]:
    """A script that never answers."""
    await asyncio.Event().wait()
    yield


@dataclass
class Gateway:
    """A gateway that serves. `state` is the application's."""

    http: httpx.AsyncClient
    host: str
    port: int
    state: Any
    server: uvicorn.Server


@asynccontextmanager
async def routing(
    servicer: router_pb2_grpc.PersonaRouterServiceServicer, states: health.aio.HealthServicer | None = None
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a server of the servicer, whose health is what `states` say."""
    server = new_server(trust=EverybodyIsTrusted())
    router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(states or health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


@asynccontextmanager
async def serving(channel: grpc.aio.Channel, door: Door | None = None, **settings: Any) -> AsyncIterator[Gateway]:
    """The gateway on a free port, with these settings besides the defaults."""
    monitor = HealthMonitor(channel, channel)
    await monitor.poll()
    app, state = build_app(HttpSettings(**settings), RouterClient(channel), monitor, door or OpenDoor())
    config = uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None, proxy_headers=False)
    server = uvicorn.Server(config)
    server.capture_signals = nothing  # type: ignore[method-assign]
    listener = socket.create_server(("127.0.0.1", 0))
    host, port = listener.getsockname()
    async with AsyncExitStack() as stack:
        running = asyncio.create_task(server.serve(sockets=[listener]))
        stack.push_async_callback(_stop, server, running)
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=20))
        yield Gateway(http, host, port, state, server)


@asynccontextmanager
async def gateway(
    script: dict[str, Any],
    door: Door | None = None,
    states: health.aio.HealthServicer | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Gateway, ScriptedRouter]]:
    """Both, for one script."""
    router = ScriptedRouter(script)
    async with routing(router, states) as channel, serving(channel, door, **settings) as started:
        yield started, router


def choice(**fields: Any) -> dict[str, Any]:
    """The parts of an answer that say who and why, valid unless told otherwise."""
    score = router_pb2.PersonaScore(persona="Lua", score=0.9)
    routing = router_pb2.Routing(
        persona="Lua", secondary_persona="Nana", confidence=0.9, resonance_key="calm-flowing-inquiry", scores=[score]
    )
    analysis = router_pb2.Analysis(
        tone=router_pb2.Tone(primary="calm", confidence=0.8),
        intent=router_pb2.Intent(primary="inquiry", confidence=0.7),
        rhythm=router_pb2.Rhythm(pace="flowing", confidence=0.6),
        read_by=router_pb2.READ_BY_READER,
    )
    return {"routing": routing, "analysis": analysis} | fields


class nothing:  # noqa: N801 - stands for a method
    """A context manager that does nothing."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def _stop(server: uvicorn.Server, running: asyncio.Task[None]) -> None:
    server.should_exit = server.force_exit = True
    await running
