"""Sessions of a chain, as a gRPC client has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from chassis.channel import open_channel
from ion.router.v1 import router_pb2, router_pb2_grpc
from tests.fake_vertex import FakeVertex
from tests.stack.harness import Chain

STORED = router_pb2.HISTORY_STATUS_STORED
UNAVAILABLE = router_pb2.HISTORY_STATUS_UNAVAILABLE
SKIPPED = router_pb2.HISTORY_STATUS_SKIPPED


@dataclass
class Session:
    """One session of one user."""

    stub: Any
    session_id: str
    user_id: str = "somebody"

    async def chat(self, message: str, **fields: Any) -> router_pb2.ChatResponse:
        request = router_pb2.ChatRequest(message=message, session_id=self.session_id, user_id=self.user_id, **fields)
        return await self.stub.Chat(request, timeout=60)

    async def is_kept(self) -> bool:
        """Whether a turn of it is stored."""
        return (await self.chat("Are you there?")).history == STORED

    def stream(self, message: str, **fields: Any) -> Any:
        request = router_pb2.ChatStreamRequest(
            message=message, session_id=self.session_id, user_id=self.user_id, **fields
        )
        return self.stub.ChatStream(request, timeout=60)

    async def get(self) -> router_pb2.Session:
        request = router_pb2.GetSessionRequest(session_id=self.session_id, user_id=self.user_id)
        return (await self.stub.GetSession(request, timeout=30)).session

    async def turns(self) -> list[router_pb2.Turn]:
        """All, oldest first."""
        request = router_pb2.ExportSessionRequest(session_id=self.session_id, user_id=self.user_id)
        return [exported.turn async for exported in self.stub.ExportSession(request, timeout=30)]

    async def delete(self) -> None:
        request = router_pb2.DeleteSessionRequest(session_id=self.session_id, user_id=self.user_id)
        await self.stub.DeleteSession(request, timeout=30)


@asynccontextmanager
async def router_of(chain: Chain) -> AsyncIterator[router_pb2_grpc.PersonaRouterServiceStub]:
    async with open_channel(chain.router) as channel:
        yield router_pb2_grpc.PersonaRouterServiceStub(channel)


def told(vertex: FakeVertex, call: int = -1) -> list[tuple[str, str]]:
    """(role, text) of the turns that the model was told, oldest first."""
    contents = vertex.calls[call].request.contents
    return [(turn.role, "".join(part.text for part in turn.parts)) for turn in contents]
