"""Services over mutual TLS: they believe each other by their certificates, and nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc.aio
import pytest
import pytest_asyncio

from chassis.access.keys import ApiKey
from chassis.channel import open_channel
from chassis.transport import PLAIN, Transport, TransportSettings
from ion.error.v1.reason_pb2 import Reason
from tests.certificates import Authority, Files
from tests.stack.guarded import OFFLINE, Services, bearer, failure_of, keys_in
from tests.stack.harness import Chain, three_processes

CLAIM = ("x-ion-caller", "key:somebody;")


@dataclass
class Secured:
    """Three processes, each proven by a certificate alone; the authority signs others too."""

    chain: Chain
    authority: Authority
    key: str


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    folder = tmp_path_factory.mktemp("state")
    authority = Authority(folder / "certificates")
    env = OFFLINE | authority.issue("ion-service").env | {"ION_TLS_SERVICES": "ion-service"}
    env |= {"ION_AUTH": "api-key", "ION_STATE_DIR": str(folder)}
    async with three_processes(env) as chain, keys_in(folder) as store:
        yield Secured(chain, authority, (await store.create("a robot"))[1])


@asynccontextmanager
async def services(secured: Secured, files: Files | None) -> AsyncIterator[Services]:
    """As whoever has this certificate calls them; without any in plain text."""
    transport = PLAIN
    if files:
        settings = TransportSettings(
            tls_certificate=files.certificate, tls_key=files.key, tls_ca=secured.authority.file
        )
        transport = Transport.of(settings)
    async with (
        open_channel(secured.chain.router, transport) as router,
        open_channel(secured.chain.llm, transport) as llm,
    ):
        yield Services(router, llm)


async def test_the_whole_chain_answers(secured: Secured):
    answer = await secured.chain.http.post("/chat", json={"message": "hello"}, headers=bearer(secured.key))
    assert answer.status_code == 200
    assert "fallback" not in answer.json()["metadata"]
    assert (await secured.chain.http.get("/health")).json()["status"] == "healthy"


async def test_a_caller_is_the_same_over_http_and_at_the_router_itself(secured: Secured):
    """For whom the gateway calls is believed, and the same as who shows the key there."""
    body = {"message": "hello", "user_id": "u", "session_id": "s"}
    stored = await secured.chain.http.post("/chat", json=body, headers=bearer(secured.key))
    assert stored.json()["metadata"]["history"] == "stored"
    async with services(secured, secured.authority.issue("robot")) as called:
        assert (await called.session("s", "u", ("x-api-key", secured.key))).turns == 1


async def test_a_certificate_with_another_name_makes_a_caller_who_needs_a_key(secured: Secured):
    async with services(secured, secured.authority.issue("robot")) as called:
        for call in (called.chat, called.generate):
            assert (await failure_of(call(CLAIM))).reason == Reason.REASON_UNAUTHENTICATED
            assert await failure_of(call(("x-api-key", secured.key))) is None


async def test_the_name_of_a_service_is_enough(secured: Secured):
    claim = ("x-ion-caller", f"key:{ApiKey.parse(secured.key).id};")
    async with services(secured, secured.authority.issue("another", "ion-service")) as called:
        assert await failure_of(called.chat(claim)) is None
        assert await failure_of(called.generate()) is None


async def test_a_certificate_of_another_authority_is_not_let_in(secured: Secured, tmp_path: Path):
    async with services(secured, Authority(tmp_path).issue("ion-service")) as called:
        for call in (called.chat, called.generate):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(("x-api-key", secured.key))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_plain_text_is_not_let_in(secured: Secured):
    async with services(secured, None) as called:
        for call in (called.chat, called.generate):
            with pytest.raises(grpc.aio.AioRpcError):
                await call(("x-api-key", secured.key))
