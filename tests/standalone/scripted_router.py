"""A persona router that says what a test wants, over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.errors import IonError
from chassis.server import add_port, new_server
from chassis.settings import Bind
from chassis.transport import PLAIN, Transport
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2, router_pb2_grpc

LUA = router_pb2.Routing(
    persona="Lua",
    resonance_key="calm-medium-inquiry",
    confidence=0.9,
    scores=[router_pb2.PersonaScore(persona="Lua", score=0.9)],
    reasoning="Because of it.",
)
ROUTED = router_pb2.ChatStreamResponse(routed=router_pb2.Routed(routing=LUA))
WHO = "🌊 Lua  calm-medium-inquiry  0.90\n"


def text(said: str) -> router_pb2.ChatStreamResponse:
    return router_pb2.ChatStreamResponse(text=said)


def done(**fields: object) -> router_pb2.ChatStreamResponse:
    return router_pb2.ChatStreamResponse(done=router_pb2.ChatDone(**fields))


Step = router_pb2.ChatStreamResponse | asyncio.Event | Reason.ValueType


class Router(router_pb2_grpc.PersonaRouterServiceServicer):
    """Streams `script`, waits at its events and fails at its reasons."""

    def __init__(self, *script: Step) -> None:
        self.script = script
        self.requests: list[router_pb2.ChatStreamRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.cancelled = asyncio.Event()

    async def ListPersonas(self, request, context):
        return router_pb2.ListPersonasResponse(count=1, personas=[router_pb2.Persona(name="Lua", symbol="🌊")])

    async def ChatStream(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        try:
            for step in self.script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, int):
                    raise IonError(step)
                else:
                    yield step
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


# The methods on sessions are not part of any script.
Router.__abstractmethods__ = frozenset()


@asynccontextmanager
async def listening(router: Router, transport: Transport = PLAIN) -> AsyncIterator[str]:
    """Its gRPC target."""
    server = new_server()
    router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(router, server)
    port = add_port(server, Bind("127.0.0.1", 0), "ION_ROUTER_BIND", transport)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
