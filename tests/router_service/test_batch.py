"""Batches of messages, between other calls."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ion.router.v1 import router_pb2
from router_service import batch
from router_service.analysis import Reader
from router_service.batch import MAX_BATCH, MAX_CHARACTERS_TOGETHER, MAX_TOGETHER, chunks, route_batch
from router_service.decisions import Decisions
from router_service.personas import DEFAULT_DIRECTORY, load_personas

FRUSTRATED = "진짜 짜증나!! 왜 계속 안 돼!!"


async def test_a_batch_reads_as_one_by_one_but_for_the_evidence(router):
    messages = [FRUSTRATED, "hello there", "what is the capital of france?", "x" * 1000, "가" * 1000] * 9
    requests = [router_pb2.RouteRequest(message=message) for message in messages]
    requests.insert(20, router_pb2.RouteRequest(resonance_key="urgent-burst-request", previous_persona="nana"))
    requests.insert(30, router_pb2.RouteRequest(message="hello", previous_persona="Nana"))
    results = (await router.BatchRoute(router_pb2.BatchRouteRequest(requests=requests))).results
    for request, result in zip(requests, results, strict=True):
        single = await router.Route(request)
        single.analysis.ClearField("evidence")
        assert result.response == single


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
async def test_batch_bounds(router, count):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.BatchRoute(router_pb2.BatchRouteRequest(requests=[router_pb2.RouteRequest(message="a")] * count))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_large_batch_lets_other_calls_through(router):
    """The batch takes its turns: a call that comes after it is answered before it."""
    message = "왜 이게 안 되는지 모르겠어요. 답답해요. " * 20
    batch = router_pb2.BatchRouteRequest(requests=[router_pb2.RouteRequest(message=message)] * MAX_BATCH)
    order = []
    large = router.BatchRoute(batch)
    large.add_done_callback(lambda _: order.append("batch"))
    await router.Route(router_pb2.RouteRequest(message="warm"))
    for _ in range(5):
        await router.Route(router_pb2.RouteRequest(message="small"))
        order.append("small")
    assert len((await large).results) == MAX_BATCH
    assert order[0] == "small"


@given(st.lists(st.integers(0, 1200), max_size=60))
def test_chunks_keep_the_order_and_their_bounds(lengths):
    requests = [router_pb2.RouteRequest(message=str(number % 10) * length) for number, length in enumerate(lengths)]
    cut = list(chunks(requests))
    assert [request for chunk in cut for request in chunk] == requests
    for chunk in cut:
        assert len(chunk) <= MAX_TOGETHER
        characters = sum(min(len(request.message), 1000) for request in chunk)
        assert characters <= MAX_CHARACTERS_TOGETHER or len(chunk) == 1


async def test_a_batch_gives_way_after_every_chunk(monkeypatch):
    turns = 0
    sleep = asyncio.sleep

    async def counted(seconds):
        nonlocal turns
        turns += 1
        await sleep(seconds)

    monkeypatch.setattr(batch.asyncio, "sleep", counted)
    requests = [router_pb2.RouteRequest(message="hello")] * 10 * MAX_TOGETHER
    await route_batch(requests, load_personas(DEFAULT_DIRECTORY), Reader.load(), Decisions())
    assert turns == 10
