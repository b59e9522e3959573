"""Chains that ask callers who they are, and callers with keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from chassis.access.key_store import HISTORY, KeyStore
from chassis.channel import open_channel
from chassis.database import DatabaseSettings, open_database
from chassis.errors import IonError, from_rpc
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2, router_pb2_grpc
from tests.stack.harness import SHAPES, Chain

SERVICE_TOKEN = "a-token-that-services-share"
PROMPT = llm_pb2.Prompt(contents=[llm_pb2.Content(role=llm_pb2.ROLE_USER, text="hello")])
# A busy machine is no reason to go on without the database.
OFFLINE = {"ION_LLM_BACKEND": "offline", "ION_DATABASE_TIMEOUT_SECONDS": "30"}


def guarded_env(shape: str, **more: str) -> dict[str, str]:
    """With keys; one process needs no proof that it is one."""
    proof = {} if shape == "standalone" else {"ION_SERVICE_TOKEN": SERVICE_TOKEN}
    return OFFLINE | {"ION_AUTH": "api-key", "ION_RATE_LIMIT": "off"} | proof | more


@asynccontextmanager
async def keys_in(folder: Path) -> AsyncIterator[KeyStore]:
    """The keys of processes that keep their state there."""
    async with open_database(DatabaseSettings(state_dir=folder, database_timeout_seconds=30), [HISTORY]) as database:
        yield KeyStore(database, timeout_seconds=30)


@asynccontextmanager
async def guarded(shape: str, folder: Path, **more: str) -> AsyncIterator[Chain]:
    async with SHAPES[shape](guarded_env(shape, ION_STATE_DIR=str(folder), **more)) as chain:
        yield chain


@dataclass
class Services:
    """Both gRPC services of a chain, as somebody calls them who shows this metadata."""

    router: grpc.aio.Channel
    llm: grpc.aio.Channel

    async def chat(self, *metadata: tuple[str, str], **fields: Any) -> router_pb2.ChatResponse:
        request = router_pb2.ChatRequest(**({"message": "hello"} | fields))
        return await router_pb2_grpc.PersonaRouterServiceStub(self.router).Chat(request, timeout=30, metadata=metadata)

    async def generate(self, *metadata: tuple[str, str]) -> llm_pb2.GenerateResponse:
        request = llm_pb2.GenerateRequest(prompt=PROMPT)
        return await llm_pb2_grpc.LlmGatewayServiceStub(self.llm).Generate(request, timeout=30, metadata=metadata)

    async def session(self, session_id: str, user_id: str, *metadata: tuple[str, str]) -> router_pb2.Session:
        request = router_pb2.GetSessionRequest(session_id=session_id, user_id=user_id)
        stub = router_pb2_grpc.PersonaRouterServiceStub(self.router)
        return (await stub.GetSession(request, timeout=10, metadata=metadata)).session


@asynccontextmanager
async def services_of(chain: Chain) -> AsyncIterator[Services]:
    async with open_channel(chain.router) as router, open_channel(chain.llm) as llm:
        yield Services(router, llm)


async def failure_of(call: Any) -> IonError | None:
    """How the call failed, as the contract tells it."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return from_rpc(error, unreachable=Reason.REASON_ROUTER_UNAVAILABLE)
    return None


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
