"""Equal requests at once make one model call; asked again, any replica has the reply."""

from __future__ import annotations

import asyncio
from collections import Counter

from chassis.channel import open_channel
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2, router_pb2_grpc
from tests.stack.harness import bound_to, start, vertex_env


async def test_fifty_at_once_make_one_model_call_and_again_is_a_hit(chain, vertex, unique):
    message = unique("오십 명이 같은 질문을 합니다")
    vertex.delay(0.5)
    responses = await asyncio.gather(*(chain.chat(message) for _ in range(50)))
    assert {response.status_code for response in responses} == {200}
    assert len(vertex.calls) == 1
    came = Counter(response.headers["X-Cache"] for response in responses)
    assert came["miss"] == 1
    assert came["coalesced"] > 0
    assert came["coalesced"] + came["hit"] == 49  # a hit: taken up after the reply had come
    assert len({response.json()["content"] for response in responses}) == 1
    again = await chain.chat(message)
    assert again.headers["X-Cache"] == "hit"
    assert again.json()["metadata"]["llm"]["attempts"] == 0
    assert len(vertex.calls) == 1


async def test_another_replica_has_it_through_redis(chain, vertex, redis_server, llm_channel, unique):
    prompt = llm_pb2.Prompt(contents=[llm_pb2.Content(role=llm_pb2.ROLE_USER, text=unique("shared"))])
    request = llm_pb2.GenerateRequest(prompt=prompt)
    here = await llm_pb2_grpc.LlmGatewayServiceStub(llm_channel).Generate(request, timeout=10)
    assert here.generation.cache == llm_pb2.CACHE_STATUS_MISS
    env = vertex_env(
        {"us-central1": vertex.endpoint}, REDIS_URL=redis_server.connection_url, ION_LLM_BIND="127.0.0.1:0"
    )
    async with start("replica", "llm_gateway", env=env) as replica, open_channel(await bound_to(replica)) as channel:
        there = await llm_pb2_grpc.LlmGatewayServiceStub(channel).Generate(request, timeout=10, wait_for_ready=True)
    assert there.generation.cache == llm_pb2.CACHE_STATUS_HIT
    assert there.text == here.text
    assert len(vertex.calls) == 1


async def test_different_personas_do_not_share_replies(chain, router_channel, vertex, unique):
    stub = router_pb2_grpc.PersonaRouterServiceStub(router_channel)
    message = unique("who are you?")
    for persona in ("Lua", "Elro"):
        await stub.Chat(router_pb2.ChatRequest(message=message, persona=persona), timeout=10)
    assert len(vertex.calls) == 2
