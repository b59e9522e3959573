"""Callers with keys share nothing in the response cache, and what concerns all of them is for operators."""

from __future__ import annotations

from pathlib import Path

import grpc.aio
import pytest

from chassis.channel import open_channel
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from tests.stack.guarded import PROMPT, failure_of, guarded, keys_in


@pytest.fixture(params=["standalone", "three processes"])
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def shown(key: str) -> tuple[tuple[str, str]]:
    return (("authorization", f"Bearer {key}"),)


async def test_a_caller_reaches_neither_the_replies_nor_the_switches_of_others(shape: str, tmp_path: Path):
    async with keys_in(tmp_path) as keys:
        ann, ann_key = await keys.create("ann")
        _, bob_key = await keys.create("bob")
        _, operator_key = await keys.create("operator", tier="admin")
    async with guarded(shape, tmp_path) as chain, open_channel(chain.llm) as channel:
        stub = llm_pb2_grpc.LlmGatewayServiceStub(channel)

        async def cache_of(key: str, scope: str) -> int:
            request = llm_pb2.GenerateRequest(prompt=PROMPT, scope=scope)
            return (await stub.Generate(request, timeout=20, metadata=shown(key))).generation.cache

        assert await cache_of(ann_key, "notes") == llm_pb2.CACHE_STATUS_MISS
        assert await cache_of(ann_key, "notes") == llm_pb2.CACHE_STATUS_HIT
        for scope in ("notes", f"key:{ann.id}/notes", f"key:{ann.id}"):
            assert await cache_of(bob_key, scope) == llm_pb2.CACHE_STATUS_MISS
        assert (await _chat(chain, ann_key))["metadata"]["llm"]["cache"] == "miss"
        assert (await _chat(chain, bob_key))["metadata"]["llm"]["cache"] == "miss"
        assert (await _chat(chain, bob_key))["metadata"]["llm"]["cache"] == "hit"

        await _is_refused(stub.GetStatistics(llm_pb2.GetStatisticsRequest(), timeout=20, metadata=shown(bob_key)))
        forget = llm_pb2.InvalidateCacheRequest(scope=f"key:{ann.id}/notes")
        await _is_refused(stub.InvalidateCache(forget, timeout=20, metadata=shown(bob_key)))
        assert await cache_of(ann_key, "notes") == llm_pb2.CACHE_STATUS_HIT
        await stub.InvalidateCache(forget, timeout=20, metadata=shown(operator_key))
        assert await cache_of(ann_key, "notes") == llm_pb2.CACHE_STATUS_MISS


async def _chat(chain, key: str) -> dict:
    answer = await chain.http.post("/chat", json={"message": "hello there"}, headers=dict(shown(key)))
    return answer.json()


async def _is_refused(call: grpc.aio.UnaryUnaryCall) -> None:
    error = await failure_of(call)
    assert error is not None
    assert error.reason == Reason.REASON_PERMISSION_DENIED
