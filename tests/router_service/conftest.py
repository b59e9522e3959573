"""The router's servicer in front of a scripted LLM gateway, over TCP and in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from chassis.channel import open_channel
from chassis.database import Database, NoDatabase, open_database
from chassis.local_channel import LocalServer
from chassis.server import CallGuard, new_server
from chassis.trust import ProvenServices
from ion.llm.v1 import llm_pb2_grpc
from ion.router.v1 import router_pb2_grpc
from router_service.assembly import HISTORY, open_persona_router
from router_service.settings import RouterSettings
from tests.router_service.scripted_llm import ScriptedLlm

PATIENT = {"database_timeout_seconds": 20.0}  # with a busy machine
SERVICE_TOKEN = "the token of services"
Host = Callable[[Callable[[Any], None]], AbstractAsyncContextManager[grpc.aio.Channel]]


@asynccontextmanager
async def over_tcp(add_to: Callable[[Any], None]) -> AsyncIterator[grpc.aio.Channel]:
    """Whoever shows the token is a service."""
    server = new_server(trust=ProvenServices(SERVICE_TOKEN))
    add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)


@asynccontextmanager
async def in_process(add_to: Callable[[Any], None]) -> AsyncIterator[grpc.aio.Channel]:
    server = LocalServer([CallGuard()])
    add_to(server)
    yield server.channel()
    await server.stop(0)


@asynccontextmanager
async def hosting(
    llm: ScriptedLlm, host: Host, database: Database | None = None, **settings: Any
) -> AsyncIterator[router_pb2_grpc.PersonaRouterServiceStub]:
    """`database` None: there is none, and no session lasts."""
    async with (
        host(lambda server: llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(llm, server)) as llm_channel,
        open_persona_router(RouterSettings(**PATIENT | settings), llm_channel, database or NoDatabase()) as hosted,
        host(hosted.add_to) as channel,
    ):
        yield router_pb2_grpc.PersonaRouterServiceStub(channel)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """A SQLite file."""
    async with open_database(RouterSettings(state_dir=tmp_path, **PATIENT), [HISTORY]) as database:
        yield database


@pytest.fixture
def llm() -> ScriptedLlm:
    return ScriptedLlm()


@pytest.fixture
async def router(llm: ScriptedLlm) -> AsyncIterator[router_pb2_grpc.PersonaRouterServiceStub]:
    async with hosting(llm, over_tcp) as stub:
        yield stub


@pytest.fixture
async def keeping_router(
    llm: ScriptedLlm, database: Database
) -> AsyncIterator[router_pb2_grpc.PersonaRouterServiceStub]:
    """With a database."""
    async with hosting(llm, over_tcp, database) as stub:
        yield stub


@pytest.fixture(params=[over_tcp, in_process])
async def either_router(
    llm: ScriptedLlm, request: pytest.FixtureRequest
) -> AsyncIterator[router_pb2_grpc.PersonaRouterServiceStub]:
    """Both hops over TCP, or both in this process."""
    async with hosting(llm, request.param) as stub:
        yield stub
