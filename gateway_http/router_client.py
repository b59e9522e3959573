"""The one place that calls the persona router."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from chassis.channel import invoke, invoke_stream
from chassis.deadline import Deadline
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2, router_pb2_grpc

_SERVICE = "ion.router.v1.PersonaRouterService"
_END_SECONDS = 0.1


async def read_to_end(stream: AsyncGenerator[Any, None]) -> None:
    """Of a stream that has said all: its call ends by itself, and is not cancelled, within 0.1 s; nobody waits longer.
    How it ends changes nothing."""
    with suppress(IonError, TimeoutError):
        async with asyncio.timeout(_END_SECONDS):
            async for _ in stream:
                pass


class RouterClient:
    """Every method raises IonError; cancelling one cancels the call below. With `wait_for_ready` a router that is
    still starting is waited for, within the deadline. `target` is what the channel was opened for."""

    def __init__(self, channel: grpc.aio.Channel, *, target: str = "", wait_for_ready: bool = False) -> None:
        self._stub = router_pb2_grpc.PersonaRouterServiceStub(channel)
        self._target = target
        self._wait_for_ready = wait_for_ready

    async def chat(self, request: router_pb2.ChatRequest, deadline: Deadline) -> router_pb2.ChatResponse:
        answer: router_pb2.ChatResponse = await self._call("Chat", request, deadline)
        return answer

    def chat_stream(
        self, request: router_pb2.ChatStreamRequest, deadline: Deadline
    ) -> AsyncGenerator[router_pb2.ChatStreamResponse, None]:
        """As the contract says: `routed`, texts, `done`. Close it where it is not read to its end."""
        return self._stream("ChatStream", request, deadline)

    async def route(self, request: router_pb2.RouteRequest, deadline: Deadline) -> router_pb2.RouteResponse:
        choice: router_pb2.RouteResponse = await self._call("Route", request, deadline)
        return choice

    async def batch_route(
        self, requests: list[router_pb2.RouteRequest], deadline: Deadline
    ) -> router_pb2.BatchRouteResponse:
        batch = router_pb2.BatchRouteRequest(requests=requests)
        choices: router_pb2.BatchRouteResponse = await self._call("BatchRoute", batch, deadline)
        return choices

    async def list_personas(self, deadline: Deadline) -> router_pb2.ListPersonasResponse:
        listed: router_pb2.ListPersonasResponse = await self._call(
            "ListPersonas", router_pb2.ListPersonasRequest(), deadline
        )
        return listed

    async def list_sessions(
        self, request: router_pb2.ListSessionsRequest, deadline: Deadline
    ) -> router_pb2.ListSessionsResponse:
        listed: router_pb2.ListSessionsResponse = await self._call("ListSessions", request, deadline)
        return listed

    async def get_session(
        self, request: router_pb2.GetSessionRequest, deadline: Deadline
    ) -> router_pb2.GetSessionResponse:
        found: router_pb2.GetSessionResponse = await self._call("GetSession", request, deadline)
        return found

    async def list_turns(
        self, request: router_pb2.ListTurnsRequest, deadline: Deadline
    ) -> router_pb2.ListTurnsResponse:
        listed: router_pb2.ListTurnsResponse = await self._call("ListTurns", request, deadline)
        return listed

    async def delete_session(
        self, request: router_pb2.DeleteSessionRequest, deadline: Deadline
    ) -> router_pb2.DeleteSessionResponse:
        deleted: router_pb2.DeleteSessionResponse = await self._call("DeleteSession", request, deadline)
        return deleted

    def export_session(
        self, request: router_pb2.ExportSessionRequest, deadline: Deadline
    ) -> AsyncGenerator[router_pb2.ExportSessionResponse, None]:
        """All turns, oldest first. Close it where it is not read to its end."""
        return self._stream("ExportSession", request, deadline)

    async def _call(self, method: str, request: Message, deadline: Deadline) -> Any:
        return await invoke(
            getattr(self._stub, method),
            f"{_SERVICE}/{method}",
            request,
            deadline,
            unreachable=Reason.REASON_ROUTER_UNAVAILABLE,
            target=self._target,
            wait_for_ready=self._wait_for_ready,
        )

    def _stream(self, method: str, request: Message, deadline: Deadline) -> AsyncGenerator[Any, None]:
        return invoke_stream(
            getattr(self._stub, method),
            f"{_SERVICE}/{method}",
            request,
            deadline,
            unreachable=Reason.REASON_ROUTER_UNAVAILABLE,
            target=self._target,
            wait_for_ready=self._wait_for_ready,
        )
