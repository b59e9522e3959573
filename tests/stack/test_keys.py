"""With ION_AUTH on nobody comes in without a valid key or token: over HTTP, and at either gRPC service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from chassis.access.key_store import KeyStore
from chassis.access.keys import ApiKey
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from tests.issuer import AUDIENCE, ISSUER, KeyServer, SigningKey, key_server, key_set
from tests.stack.guarded import (
    OFFLINE,
    PROMPT,
    SERVICE_TOKEN,
    Services,
    bearer,
    failure_of,
    guarded,
    keys_in,
    services_of,
)
from tests.stack.harness import SHAPES, Chain, Gateway, llm_gateway, standalone, until

FIRST, SECOND = SigningKey("first"), SigningKey("second", "RS256")
WITHIN_SECONDS = 20.0  # what is withdrawn holds for ten at most


@dataclass
class Guarded:
    chain: Chain
    services: Services
    store: KeyStore
    key: str
    withdrawn: str  # has been used at every door, and was revoked then


@asynccontextmanager
async def with_keys(shape: str, folder: Path) -> AsyncIterator[Guarded]:
    async with (
        guarded(shape, folder, ION_LOG_LEVEL="debug") as chain,
        services_of(chain) as services,
        keys_in(folder) as store,
    ):
        (_, key), (withdrawn, text) = await store.create("a robot", "pro"), await store.create("withdrawn")
        assert (await chain.http.get("/personas", headers=bearer(text))).status_code == 200
        await services.chat(("x-api-key", text))
        await services.generate(("x-api-key", text))
        await store.revoke(withdrawn.id)
        yield Guarded(chain, services, store, key, text)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def all_shapes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Guarded]]:
    """Started together, so that what has to pass until something withdrawn is gone passes for both at once."""
    async with AsyncExitStack() as stack:
        starting = (with_keys(shape, tmp_path_factory.mktemp("state")) for shape in SHAPES)
        started = await asyncio.gather(*(stack.enter_async_context(one) for one in starting))
        yield {one.chain.shape: one for one in started}


@pytest.fixture(params=SHAPES)
def at(request: pytest.FixtureRequest, all_shapes: dict[str, Guarded]) -> Guarded:
    return all_shapes[request.param]


@dataclass
class Rotated:
    """A gateway whose issuer signs with another key since a while."""

    gateway: Gateway
    server: KeyServer

    async def lets_in(self, token: str) -> bool:
        request, metadata = llm_pb2.GenerateRequest(prompt=PROMPT), (("authorization", f"Bearer {token}"),)
        return await failure_of(self.gateway.stub.Generate(request, timeout=30, metadata=metadata)) is None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def rotated() -> AsyncIterator[Rotated]:
    with key_server(FIRST) as server:
        async with llm_gateway(jwt_env(server.url)) as gateway:
            started = Rotated(gateway, server)
            assert await started.lets_in(FIRST.sign())
            assert not await started.lets_in(SigningKey("first").sign())
            server.body = key_set(SECOND)
            yield started


def jwt_env(source: str) -> dict[str, str]:
    return OFFLINE | {
        "ION_AUTH": "jwt",
        "ION_JWT_ISSUER": ISSUER,
        "ION_JWT_AUDIENCE": AUDIENCE,
        "ION_JWT_JWKS": source,
    }


async def test_nobody_comes_in_without_a_key(at: Guarded, rotated: Rotated):
    for headers in ({}, bearer(ApiKey.new().text), bearer("nonsense"), {"X-API-Key": at.key[:-1]}):
        answer = await at.chain.http.post("/chat", json={"message": "hello"}, headers=headers)
        assert (answer.status_code, answer.json()["reason"]) == (401, "UNAUTHENTICATED")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    for metadata in ((), (("x-api-key", ApiKey.new().text),), (("authorization", at.key),)):
        for call in (at.services.chat(*metadata), at.services.generate(*metadata)):
            assert (await failure_of(call)).reason == Reason.REASON_UNAUTHENTICATED


async def test_a_key_comes_in_at_every_door(at: Guarded):
    for headers in (bearer(at.key), {"X-API-Key": at.key}):
        answer = await at.chain.http.post("/chat", json={"message": "hello"}, headers=headers)
        assert answer.status_code == 200
        assert "fallback" not in answer.json()["metadata"]
    for metadata in (("x-api-key", at.key), ("authorization", f"Bearer {at.key}")):
        assert (await at.services.chat(metadata)).content
        assert (await at.services.generate(metadata)).text


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/readyz", "/docs", "/openapi.json"])
async def test_some_pages_are_for_everybody(at: Guarded, path):
    assert (await at.chain.http.get(path)).status_code == 200


async def test_health_is_whole_though_services_ask_each_other_for_proof(at: Guarded):
    health = (await at.chain.http.get("/health")).json()
    assert (health["status"], health["personas"]["count"]) == ("healthy", 4)


async def test_sessions_of_one_key_are_not_anothers_and_nobody_says_so(at: Guarded):
    """Who says that it calls for another is not believed, unless it proves to be a service."""
    _, other = await at.store.create("another")
    body = {"message": "hello", "user_id": "somebody", "session_id": "a-session"}
    stored = await at.chain.http.post("/chat", json=body, headers=bearer(at.key))
    assert stored.json()["metadata"]["history"] == "stored"
    claim = ("x-ion-caller", f"key:{ApiKey.parse(at.key).id};")
    found = await at.services.session("a-session", "somebody", ("x-api-key", at.key))
    assert found.turns == 1
    for metadata in ((("x-api-key", other),), (("x-api-key", other), claim)):
        error = await failure_of(at.services.session("a-session", "somebody", *metadata))
        assert error.reason == Reason.REASON_SESSION_NOT_FOUND
    for metadata in ((claim,), (claim, ("x-ion-service-token", "a-token-that-is-guessed"))):
        error = await failure_of(at.services.session("a-session", "somebody", *metadata))
        assert error.reason == Reason.REASON_UNAUTHENTICATED
    proof = ("x-ion-service-token", SERVICE_TOKEN)
    if at.chain.shape == "standalone":
        assert (await failure_of(at.services.session("a-session", "somebody", claim, proof))) is not None
    else:
        assert (await at.services.session("a-session", "somebody", claim, proof)).turns == 1


async def test_tokens_of_a_file_come_in_and_a_new_file_is_followed(tmp_path: Path):
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(FIRST))
    async with standalone(jwt_env(str(path))) as chain:

        async def status(token: str) -> int:
            return (await chain.http.post("/chat", json={"message": "hello"}, headers=bearer(token))).status_code

        assert await status(FIRST.sign()) == 200
        assert [await status(token) for token in (SECOND.sign(), FIRST.sign(aud="other"), "x.y.z")] == [401] * 3
        (tmp_path / "new").write_bytes(key_set(SECOND))
        (tmp_path / "new").rename(path)

        async def is_followed() -> bool:
            return await status(SECOND.sign()) == 200

        await until(is_followed)
        assert await status(FIRST.sign()) == 401


async def test_a_revoked_key_is_refused_at_every_door(at: Guarded):
    """Within ten seconds, of which the tests before have taken some."""

    async def is_refused_over_http() -> bool:
        answer = await at.chain.http.get("/personas", headers=bearer(at.withdrawn))
        return answer.status_code == 401

    async def is_refused(call) -> bool:
        error = await failure_of(call(("x-api-key", at.withdrawn)))
        return error is not None and error.reason == Reason.REASON_UNAUTHENTICATED

    await until(is_refused_over_http, seconds=WITHIN_SECONDS)
    await until(lambda: is_refused(at.services.chat), seconds=WITHIN_SECONDS)
    await until(lambda: is_refused(at.services.generate), seconds=WITHIN_SECONDS)
    assert await failure_of(at.services.chat(("x-api-key", at.key))) is None


async def test_tokens_of_a_url_come_in_and_new_keys_are_followed(rotated: Rotated):
    await until(lambda: rotated.lets_in(SECOND.sign()), seconds=WITHIN_SECONDS)
    rotated.server.status = 500
    assert await rotated.lets_in(SECOND.sign())
    assert not await rotated.lets_in(FIRST.sign())


async def test_no_process_writes_down_keys_or_tokens(at: Guarded):
    """After all the calls above, with all that there is in the log."""
    written = "\n".join(line for process in at.chain.processes.values() for line in process.lines)
    for key in (at.key, at.withdrawn):
        assert ApiKey.parse(key).secret not in written
    assert SERVICE_TOKEN not in written
