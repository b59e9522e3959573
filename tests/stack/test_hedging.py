"""A late call is joined by one elsewhere, within a budget; the first to answer wins and the other is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest_asyncio

from tests.fake_vertex import FakeVertex
from tests.stack.harness import Gateway, Streamed, llm_gateway, until, vertex_env

LEARNED_FROM = 80


@asynccontextmanager
async def experienced(fleet: dict[str, FakeVertex], **more: str) -> AsyncIterator[Gateway]:
    """A gateway that has seen how fast the model is, at the first of its two locations. What it takes to be late is the
    time that it needs for so many calls at once, so that none is late by chance."""
    central, west, _ = fleet.values()
    endpoints = {fake.location: fake.endpoint for fake in (central, west)}
    async with llm_gateway(vertex_env(endpoints, **more)) as gateway:
        central.reset()
        central.hang()
        calls = [asyncio.create_task(gateway.generate(f"learn {number}")) for number in range(LEARNED_FROM)]
        await central.wait_for_calls(LEARNED_FROM, timeout_seconds=20)
        central.release()
        await asyncio.gather(*calls)
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(fleet) -> AsyncIterator[Gateway]:
    async with experienced(fleet) as gateway:
        yield gateway


async def test_a_late_reply_comes_from_another_location_and_the_loser_is_cancelled(gateway, regions, unique):
    central, west, _ = regions
    central.hang()
    generation = (reply := await gateway.generate(unique("hello"), persona="Hedger")).generation
    assert reply.text == "from us-west1"
    assert (generation.location, generation.attempts, generation.hedges) == ("us-west1", 2, 1)
    assert len(west.calls) == 1
    await central.wait_for_outcome("cancelled")
    assert generation.lost_usage.input_tokens > 0
    statistics = await gateway.statistics()
    assert statistics.calls.hedges_won > 0
    assert [entry.lost_usage.input_tokens for entry in statistics.usage if entry.persona == "Hedger"] == [
        generation.lost_usage.input_tokens
    ]


async def test_a_late_first_token_of_a_stream_too(gateway, regions, unique):
    central, *_ = regions
    central.hang()
    streamed = await Streamed.read(gateway.stream(unique("hello")))
    assert streamed.text == "from us-west1"
    assert (streamed.last.attempts, streamed.last.hedges) == (2, 1)
    await central.wait_for_outcome("cancelled")


async def test_a_reply_that_begins_in_time_and_then_is_late(gateway, regions, unique):
    central, *_ = regions
    central.hold_after_pieces(1)
    reply = await gateway.generate(unique("hello"))
    assert reply.text == "from us-west1"
    assert (reply.generation.attempts, reply.generation.hedges) == (2, 1)
    await central.wait_for_outcome("cancelled")


async def test_a_call_marked_not_to_hedge_waits(gateway, regions, unique):
    central, west, _ = regions
    central.hang()
    waiting = asyncio.create_task(gateway.generate(unique("hello"), no_hedge=True))
    await central.wait_for_calls(1)
    hedged = await gateway.generate(unique("hello"))  # sent later, and late by now
    assert hedged.generation.hedges == 1
    central.release()
    generation = (await waiting).generation
    assert (generation.location, generation.attempts, generation.hedges) == ("us-central1", 1, 0)
    assert len(west.calls) == 1


async def test_hedges_are_at_most_a_tenth_of_the_requests_and_one(gateway, regions, unique):
    """The others that would like one are counted, and answered all the same."""
    for fake in regions:
        fake.hang()
    asked = [asyncio.create_task(gateway.generate(unique("at once"))) for _ in range(30)]

    async def one_is_denied() -> bool:
        return (await gateway.statistics()).calls.hedges_denied > 0

    await until(one_is_denied)
    for fake in regions:
        fake.release()
    assert all(reply.text for reply in await asyncio.gather(*asked))
    calls = (await gateway.statistics()).calls
    requests = calls.calls - calls.hedges - calls.retries
    assert requests >= LEARNED_FROM + len(asked)
    assert 0 < calls.hedges <= 0.1 * requests + 1


async def test_off_means_none(fleet, regions, unique):
    central, *_ = regions
    async with experienced(fleet, ION_HEDGE="off") as gateway:
        central.hang()
        generation = (await gateway.generate(unique("hello"), seconds=2)).generation
        assert (await gateway.statistics()).calls.hedges == 0
    # At half of its time the call is given up for one elsewhere.
    assert (generation.location, generation.attempts, generation.hedges) == ("us-west1", 2, 0)
