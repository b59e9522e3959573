"""A router or an LLM gateway that is away or hangs means an apology within the deadline, and recovery by itself."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.stack.harness import bound_to, start, three_processes, vertex_env

APOLOGY = ("Nana", 0.0, "error-fallback-statement")


def who(response) -> tuple[str, float, str]:
    answer = response.json()
    return answer["persona_used"], answer["confidence"], answer["resonance_key"]


async def test_llm_gateway_killed_and_started_again(vertex, unique):
    async with three_processes(vertex_env({"us-central1": vertex.endpoint})) as chain:
        chain.processes["llm_gateway"].signal(signal.SIGKILL)
        await chain.processes["llm_gateway"].ended()
        response = await chain.chat(unique("hello"))
        assert who(response) == APOLOGY
        assert response.json()["metadata"]["error"] == {"reason": "LLM_GATEWAY_UNAVAILABLE", "retryable": True}
        await chain.wait_until_health(lambda health: not health["pipeline_ready"])
        assert (await chain.http.get("/readyz")).status_code == 503
        assert (await chain.http.get("/livez")).status_code == 200
        env = vertex_env({"us-central1": vertex.endpoint}, ION_LLM_BIND=chain.llm)
        async with start("llm_gateway", "llm_gateway", env=env) as again:
            await bound_to(again)
            await chain.wait_until_health(lambda health: health["pipeline_ready"])
            # The gateway may see it before the router's own channel has connected again.
            async with asyncio.timeout(5):
                while "fallback" in (await chain.chat(unique("hello"))).json()["metadata"]:
                    pass


async def test_router_killed(vertex, unique):
    async with three_processes(vertex_env({"us-central1": vertex.endpoint})) as chain:
        chain.processes["router_service"].signal(signal.SIGKILL)
        await chain.processes["router_service"].ended()
        response = await chain.chat(unique("왜 안 되죠"))
        assert who(response) == APOLOGY
        assert "문제가 발생" in response.json()["content"]
        assert response.json()["metadata"] == {
            "fallback": True,
            "error": {"reason": "ROUTER_UNAVAILABLE", "retryable": True},
        }
        routed = await chain.http.post("/route", json={"message": "hello"})
        assert routed.status_code == 503
        assert routed.headers["Retry-After"]
        assert routed.json()["reason"] == "ROUTER_UNAVAILABLE"
        assert (await chain.http.get("/personas")).status_code == 503


async def test_router_that_hangs(vertex, unique):
    async with three_processes(vertex_env({"us-central1": vertex.endpoint})) as chain:
        chain.processes["router_service"].signal(signal.SIGSTOP)
        started = time.monotonic()
        response = await chain.http.post(
            "/chat", json={"message": unique("hello")}, headers={"X-Request-Timeout": "0.6"}
        )
        assert who(response) == APOLOGY
        assert response.json()["metadata"]["error"]["reason"] == "DEADLINE_EXCEEDED"
        await chain.wait_until_health(lambda health: not health["pipeline_ready"])
        assert time.monotonic() - started < 5
        asked = time.monotonic()
        assert (await chain.http.get("/health")).json()["status"] == "degraded"
        assert time.monotonic() - asked < 0.5
        chain.processes["router_service"].signal(signal.SIGCONT)
        await chain.wait_until_health(lambda health: health["status"] == "healthy")


async def test_second_location_answers_when_the_first_is_down(vertex, unique):
    """The model's own outage: another location inside the same deadline."""
    endpoints = {"us-central1": "127.0.0.1:1", "us-west1": vertex.endpoint}
    async with three_processes(vertex_env(endpoints)) as chain:
        answer = (await chain.chat(unique("hello"))).json()
        assert answer["metadata"]["llm"]["location"] == "us-west1"
        assert answer["metadata"]["llm"]["attempts"] == 2
