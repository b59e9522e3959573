"""A location in trouble is left for another inside the same call, let alone while ill, and used again once well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
import pytest_asyncio

from chassis.channel import open_channel
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from tests.stack.harness import Chain, Gateway, failure, llm_gateway, standalone, until, vertex_env

CONNECT_SECONDS = 0.3  # to the far side of an ocean, and back, and back


@asynccontextmanager
async def far_away(endpoint: str) -> AsyncIterator[str]:
    """Another address of the endpoint, where a connection takes its time."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(CONNECT_SECONDS)
        far_reader, far_writer = await asyncio.open_connection(*endpoint.split(":"))
        ways = [asyncio.create_task(relay(*pair)) for pair in ((reader, far_writer), (far_reader, writer))]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far_writer):
            end.close()

    server = await asyncio.start_server(connect, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(fleet_endpoints) -> AsyncIterator[Gateway]:
    """Its breakers stay closed: the tests that share it make fewer calls together than open one."""
    async with (
        far_away(fleet_endpoints["europe-west1"]) as endpoint,
        llm_gateway(vertex_env(fleet_endpoints | {"europe-west1": endpoint})) as gateway,
    ):
        yield gateway


CODES = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL]


@pytest.mark.parametrize("code", CODES)
async def test_a_failed_call_is_made_at_the_next_location(gateway, regions, unique, code):
    central, west, _ = regions
    central.fail(code)
    reply = await gateway.generate(unique("hello"))
    assert reply.text == "from us-west1"
    assert (reply.generation.location, reply.generation.attempts) == ("us-west1", 2)
    assert (len(central.calls), len(west.calls)) == (1, 1)


async def test_a_call_that_hangs_is_given_up_for_another_inside_the_same_deadline(gateway, regions, unique):
    central, *_ = regions
    central.hang()
    generation = (await gateway.generate(unique("hello"), seconds=2, no_hedge=True)).generation
    assert (generation.location, generation.attempts) == ("us-west1", 2)
    await central.wait_for_outcome("cancelled")


async def test_two_failed_calls_lead_to_the_third_location(gateway, regions, unique):
    """Of one nobody listens at, and the third is far away: its connection is waited for."""
    central, west, _ = regions
    central.fail(grpc.StatusCode.UNAVAILABLE)
    await west.stop()
    try:
        generation = (await gateway.generate(unique("hello"))).generation
    finally:
        await west.start()
    assert (generation.location, generation.attempts) == ("europe-west1", 3)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def chain(fleet_endpoints) -> AsyncIterator[Chain]:
    async with standalone(vertex_env(fleet_endpoints)) as chain:
        yield chain


async def breaker(chain: Chain, location: str) -> llm_pb2.BreakerState:
    async with open_channel(chain.llm) as channel:
        stub = llm_pb2_grpc.LlmGatewayServiceStub(channel)
        statistics = await stub.GetStatistics(llm_pb2.GetStatisticsRequest(), timeout=10)
    return next(entry.breaker for entry in statistics.locations if entry.location == location)


async def chats(chain: Chain, unique, count: int) -> list[str]:
    """At once; the locations that answered."""

    async def one() -> str:
        metadata = (await chain.chat(unique("hello"))).json()["metadata"]
        assert "fallback" not in metadata
        return metadata["llm"]["location"]

    return await asyncio.gather(*(one() for _ in range(count)))


async def test_one_location_of_three_that_fails_costs_nobody_an_answer_and_is_used_again_once_well(
    chain, regions, unique
):
    central, *_ = regions
    for fake in regions:
        fake.delay(0.1)  # all are under way before the first fails, and later no probe is late by chance
    central.fail(grpc.StatusCode.UNAVAILABLE)
    assert set(await chats(chain, unique, 60)) == {"us-west1"}
    assert await breaker(chain, "us-central1") != llm_pb2.BREAKER_STATE_CLOSED
    central.calls.clear()
    assert set(await chats(chain, unique, 60)) == {"us-west1"}
    assert len(central.calls) <= 5  # probes
    central.behave()

    async def is_used_again() -> bool:
        return await chats(chain, unique, 1) == ["us-central1"]

    await until(is_used_again, seconds=20)

    async def is_closed() -> bool:
        await chats(chain, unique, 1)
        return await breaker(chain, "us-central1") == llm_pb2.BREAKER_STATE_CLOSED

    await until(is_closed, seconds=20)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stricken(fleet_endpoints) -> AsyncIterator[Gateway]:
    async with llm_gateway(vertex_env(fleet_endpoints)) as gateway:
        yield gateway


async def test_a_location_is_let_alone_for_as_long_as_it_asks(stricken, regions, unique):
    central, *_ = regions
    central.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, times=1, retry_after_seconds=60)
    for _ in range(5):
        assert (await stricken.generate(unique("hello"))).text == "from us-west1"
    assert len(central.calls) == 1


async def test_an_outage_of_all_costs_little_more_than_a_call_a_request(stricken, regions, unique):
    for fake in regions:
        fake.fail(grpc.StatusCode.UNAVAILABLE)

    async def fail(count: int) -> None:
        asked = [stricken.generate(unique("hello")) for _ in range(count)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert {failure(outcome).reason_name for outcome in outcomes} == {"MODEL_UNAVAILABLE"}

    async def no_location_is_usable() -> bool:
        await fail(4)
        breakers = [entry.breaker for entry in (await stricken.statistics()).locations]
        return llm_pb2.BREAKER_STATE_CLOSED not in breakers[1:]  # the first asked to be let alone, and is

    await until(no_location_is_usable)
    for fake in regions:
        fake.calls.clear()
    before = (await stricken.statistics()).calls
    await fail(200)
    calls = (await stricken.statistics()).calls
    assert calls.retries_denied > before.retries_denied
    made = sum(len(fake.calls) for fake in regions)
    assert 200 <= made <= 1.1 * 200 + 10
    for fake in regions:
        fake.behave()

    async def answers() -> bool:
        try:
            return bool((await stricken.generate(unique("again"))).text)
        except grpc.aio.AioRpcError:
            return False

    await until(answers)
