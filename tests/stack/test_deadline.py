"""The caller's deadline travels the whole way, and nothing hangs past it."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from ion.router.v1 import router_pb2, router_pb2_grpc


async def test_deadline_reaches_the_model_less_a_margin(chain, vertex, unique):
    await chain.http.post("/chat", json={"message": unique("hello")}, headers={"X-Request-Timeout": "5"})
    assert 4.0 < vertex.calls[0].time_remaining_seconds < 5.0


async def test_hanging_model_gives_an_apology_within_the_deadline(chain, vertex, unique):
    vertex.hang()
    started = time.monotonic()
    response = await chain.http.post("/chat", json={"message": unique("hello")}, headers={"X-Request-Timeout": "0.8"})
    assert time.monotonic() - started < 2.0
    assert response.json()["metadata"]["error"] == {"reason": "DEADLINE_EXCEEDED", "retryable": True}
    await vertex.wait_for_outcome("cancelled")


async def test_one_millisecond_is_answered_and_not_a_hang(chain, vertex, unique):
    vertex.hang()
    response = await asyncio.wait_for(
        chain.http.post("/chat", json={"message": unique("안녕")}, headers={"X-Request-Timeout": "0.001"}), 5
    )
    assert response.status_code == 200
    assert response.json()["metadata"]["error"]["reason"] == "DEADLINE_EXCEEDED"
    assert "문제가 발생" in response.json()["content"]


async def test_one_millisecond_over_grpc_is_answered_with_an_apology_or_the_deadlines_status(
    router_channel, vertex, unique
):
    """Which of the two is a race that either may win; waiting for the model is not among them."""
    vertex.hang()
    stub = router_pb2_grpc.PersonaRouterServiceStub(router_channel)
    call = stub.Chat(router_pb2.ChatRequest(message=unique("hello")), timeout=0.001)
    code = await asyncio.wait_for(call.code(), 5)
    assert code in (grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED)
    if code is grpc.StatusCode.OK:
        assert (await call).fallback


@pytest.mark.parametrize("given", ["0", "-1", "nan", "soon", "301"])
async def test_impossible_timeouts_are_refused(chain, given):
    response = await chain.http.post("/chat", json={"message": "hello"}, headers={"X-Request-Timeout": given})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["header", "X-Request-Timeout"]
