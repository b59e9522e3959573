"""The router as the commands see it: a running one over gRPC, or one inside this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from chassis import telemetry
from chassis.channel import open_channel
from chassis.errors import from_rpc
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2, router_pb2_grpc
from llm_gateway.settings import LlmSettings
from router_service.settings import RouterSettings
from standalone.pipeline import open_pipeline


class Router:
    """Every method raises IonError. A service that is still starting is waited for, within the timeout."""

    def __init__(self, channel: grpc.aio.Channel, timeout_seconds: float) -> None:
        self._stub = router_pb2_grpc.PersonaRouterServiceStub(channel)
        self._timeout_seconds = timeout_seconds

    async def chat(self, message: str, *, persona: str, session_id: str) -> router_pb2.ChatResponse:
        request = router_pb2.ChatRequest(message=message, persona=persona, session_id=session_id)
        return await self._call("Chat", request)

    async def route(self, request: router_pb2.RouteRequest) -> router_pb2.RouteResponse:
        return await self._call("Route", request)

    async def batch_route(self, requests: list[router_pb2.RouteRequest]) -> router_pb2.BatchRouteResponse:
        return await self._call("BatchRoute", router_pb2.BatchRouteRequest(requests=requests))

    async def list_personas(self) -> router_pb2.ListPersonasResponse:
        return await self._call("ListPersonas", router_pb2.ListPersonasRequest())

    async def _call(self, method: str, request: object) -> object:
        telemetry.enter(None, None)
        call = getattr(self._stub, method)
        metadata = telemetry.outgoing_metadata()
        try:
            return await call(request, timeout=self._timeout_seconds, metadata=metadata, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, unreachable=Reason.REASON_ROUTER_UNAVAILABLE) from error


@asynccontextmanager
async def open_router(
    target: str | None, router_settings: RouterSettings, llm_settings: LlmSettings, timeout_seconds: float
) -> AsyncIterator[Router]:
    """The router at `target`, or one in this process where there is no target."""
    if target:
        async with open_channel(target) as channel:
            yield Router(channel, timeout_seconds)
    else:
        async with open_pipeline(router_settings, llm_settings) as pipeline:
            yield Router(pipeline.router.channel, timeout_seconds)
