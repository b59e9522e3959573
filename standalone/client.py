"""The router as the commands see it: a running one over gRPC, or one inside this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from chassis.channel import open_channel
from chassis.database import Database, open_database
from chassis.deadline import Deadline
from chassis.observability import tracing
from chassis.transport import Transport
from gateway_http.router_client import RouterClient
from ion.router.v1 import router_pb2
from llm_gateway.settings import LlmSettings
from router_service.assembly import HISTORY
from router_service.settings import RouterSettings
from standalone.pipeline import open_pipeline


class Router:
    """One command's view of the router: each call gets new ids and the command's timeout. Raises IonError."""

    def __init__(self, client: RouterClient, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    async def chat(self, request: router_pb2.ChatRequest) -> router_pb2.ChatResponse:
        return await self._client.chat(request, self._begin())

    def chat_stream(self, request: router_pb2.ChatStreamRequest) -> AsyncGenerator[router_pb2.ChatStreamResponse, None]:
        """To be closed where it is not read to its end."""
        return self._client.chat_stream(request, self._begin())

    async def route(self, request: router_pb2.RouteRequest) -> router_pb2.RouteResponse:
        return await self._client.route(request, self._begin())

    async def batch_route(self, requests: list[router_pb2.RouteRequest]) -> router_pb2.BatchRouteResponse:
        return await self._client.batch_route(requests, self._begin())

    async def list_personas(self) -> router_pb2.ListPersonasResponse:
        return await self._client.list_personas(self._begin())

    async def list_sessions(self, request: router_pb2.ListSessionsRequest) -> router_pb2.ListSessionsResponse:
        return await self._client.list_sessions(request, self._begin())

    async def session(self, session_id: str, user_id: str) -> router_pb2.Session:
        request = router_pb2.GetSessionRequest(session_id=session_id, user_id=user_id)
        return (await self._client.get_session(request, self._begin())).session

    def turns(self, session_id: str, user_id: str) -> AsyncGenerator[router_pb2.ExportSessionResponse, None]:
        """All of them, oldest first. To be closed where it is not read to its end."""
        request = router_pb2.ExportSessionRequest(session_id=session_id, user_id=user_id)
        return self._client.export_session(request, self._begin())

    async def delete_session(self, session_id: str, user_id: str) -> None:
        request = router_pb2.DeleteSessionRequest(session_id=session_id, user_id=user_id)
        await self._client.delete_session(request, self._begin())

    def _begin(self) -> Deadline:
        tracing.enter(None, None)
        return Deadline.after(self._timeout_seconds)


@asynccontextmanager
async def open_router(
    target: str | None,
    router_settings: RouterSettings,
    llm_settings: LlmSettings,
    timeout_seconds: float,
    *,
    keeps_sessions: bool,
) -> AsyncIterator[Router]:
    """The router at `target`, waited for while it starts, or one in this process where there is no target: with the
    database that `ion serve` has, where it `keeps_sessions`."""
    async with AsyncExitStack() as stack:
        if target:
            channel = await stack.enter_async_context(open_channel(target, Transport.of(router_settings)))
        else:
            database = await stack.enter_async_context(_database(router_settings)) if keeps_sessions else None
            pipeline = await stack.enter_async_context(open_pipeline(router_settings, llm_settings, database))
            channel = pipeline.router.channel
        yield Router(RouterClient(channel, target=target or "", wait_for_ready=bool(target)), timeout_seconds)


def _database(settings: RouterSettings) -> AbstractAsyncContextManager[Database]:
    return open_database(settings, [HISTORY])
