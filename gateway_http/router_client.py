"""The one place that calls the persona router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import grpc.aio
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, from_rpc
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2, router_pb2_grpc

R = TypeVar("R", bound=Message)
_SERVICE = "ion.router.v1.PersonaRouterService"


class RouterClient:
    """Every method raises IonError; cancelling one cancels the call below."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = router_pb2_grpc.PersonaRouterServiceStub(channel)

    async def chat(self, request: router_pb2.ChatRequest, deadline: Deadline) -> router_pb2.ChatResponse:
        return await _call(self._stub.Chat, "Chat", request, router_pb2.ChatResponse, deadline)

    async def route(self, request: router_pb2.RouteRequest, deadline: Deadline) -> router_pb2.RouteResponse:
        return await _call(self._stub.Route, "Route", request, router_pb2.RouteResponse, deadline)

    async def list_personas(self, deadline: Deadline) -> router_pb2.ListPersonasResponse:
        request = router_pb2.ListPersonasRequest()
        return await _call(self._stub.ListPersonas, "ListPersonas", request, router_pb2.ListPersonasResponse, deadline)


async def _call(
    method: Callable[..., Any], name: str, request: Message, _response_type: type[R], deadline: Deadline
) -> R:
    remaining = deadline.remaining_seconds()
    if remaining <= 0:
        raise DeadlineExceeded
    with telemetry.span(f"{_SERVICE}/{name}", SpanKind.CLIENT):
        call = method(request, timeout=remaining, metadata=telemetry.outgoing_metadata())
        try:
            response: R = await call
        except asyncio.CancelledError:
            call.cancel()
            raise
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, unreachable=Reason.REASON_ROUTER_UNAVAILABLE) from error
    return response
