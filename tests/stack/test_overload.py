"""Too much work is refused at once, with when to come again; what was taken on is answered, and says how it waited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from chassis.channel import open_channel
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2, router_pb2_grpc
from tests.stack.harness import SHAPES, Chain, Streamed, failure, until, vertex_env

RUNNING, QUEUED = 2, 3


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=SHAPES)
async def small(request: pytest.FixtureRequest, _vertex) -> AsyncIterator[Chain]:
    limits = {"ION_MAX_CONCURRENT_CALLS": str(RUNNING), "ION_MAX_QUEUED_CALLS": str(QUEUED)}
    async with SHAPES[request.param](vertex_env({"us-central1": _vertex.endpoint}, **limits)) as chain:
        yield chain


@pytest_asyncio.fixture(loop_scope="session")
async def taken_on(small: Chain, vertex, unique) -> AsyncIterator[list[asyncio.Task]]:
    """As many chats as there are places, while the model holds all of them."""
    vertex.hang()
    chats = [asyncio.create_task(small.chat(unique("hello"))) for _ in range(RUNNING + QUEUED)]
    async with open_channel(small.llm) as channel:
        stub = llm_pb2_grpc.LlmGatewayServiceStub(channel)

        async def all_are_in() -> bool:
            calls = (await stub.GetStatistics(llm_pb2.GetStatisticsRequest(), timeout=10)).calls
            return (calls.running, calls.queued) == (RUNNING, QUEUED)

        await until(all_are_in)
    yield chats
    vertex.release()
    await asyncio.gather(*chats)


async def test_surplus_chats_are_told_to_come_again_and_the_others_are_answered(small, taken_on, vertex, unique):
    surplus = await asyncio.gather(*(small.chat(unique("too much")) for _ in range(20)))
    assert {response.status_code for response in surplus} == {503}
    assert {response.json()["reason"] for response in surplus} == {"OVERLOADED"}
    assert all(int(response.headers["Retry-After"]) >= 1 for response in surplus)
    assert len(vertex.calls) == RUNNING
    vertex.release()
    answers = [(await chat).json() for chat in taken_on]
    assert not any("fallback" in answer["metadata"] for answer in answers)
    waited = [answer["metadata"]["llm"].get("queued_ms", 0) for answer in answers]
    assert sum(milliseconds > 0 for milliseconds in waited) >= QUEUED
    assert (await small.chat(unique("later"))).status_code == 200


async def test_surplus_grpc_calls_say_when_to_come_again(small, taken_on, unique):
    async with open_channel(small.router) as router, open_channel(small.llm) as llm:
        chat = router_pb2_grpc.PersonaRouterServiceStub(router).Chat
        generate = llm_pb2_grpc.LlmGatewayServiceStub(llm).Generate
        prompt = llm_pb2.Prompt(contents=[llm_pb2.Content(text=unique("too much"))])
        refused = [
            chat(router_pb2.ChatRequest(message=unique("too much")), timeout=10),
            generate(llm_pb2.GenerateRequest(prompt=prompt), timeout=10),
        ]
        for call in refused:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert failure(caught.value).reason_name == "OVERLOADED"
            assert failure(caught.value).retry_after_seconds > 0


async def test_a_surplus_stream_is_refused_after_the_choice(small, taken_on, unique):
    async with open_channel(small.router) as channel:
        stub = router_pb2_grpc.PersonaRouterServiceStub(channel)
        request = router_pb2.ChatStreamRequest(message=unique("too much"))
        streamed = await Streamed.read(stub.ChatStream(request, timeout=10))
    assert streamed.kinds == ["routed"]
    assert streamed.error.reason_name == "OVERLOADED"
    assert streamed.error.retry_after_seconds > 0
