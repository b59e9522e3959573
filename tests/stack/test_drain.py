"""A process told to stop says so, takes nothing new, ends what it has begun, and exits with 0."""

from __future__ import annotations

import asyncio
import signal

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.channel import open_channel
from tests.stack.harness import SHAPES, vertex_env

STOPPED = {"standalone": "ion", "three processes": "gateway_http"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("shape", SHAPES)
async def test_request_in_flight_is_answered(shape, number, vertex, unique):
    vertex.hang()
    async with SHAPES[shape](vertex_env({"us-central1": vertex.endpoint})) as chain:
        request = asyncio.create_task(chain.chat(unique("hello")))
        await vertex.wait_for_calls(1)
        process = chain.processes[STOPPED[shape]]
        process.signal(number)
        # Only then may the model answer.
        await _refuses_connections(chain.url)
        vertex.release()
        response = await request
        assert response.status_code == 200
        assert "fallback" not in response.json()["metadata"]
        assert await process.ended() == 0


async def _refuses_connections(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("name", ["router_service", "llm_gateway"])
async def test_grpc_service_reports_not_serving_and_ends_calls_in_flight(name, vertex, unique):
    vertex.hang()
    env = vertex_env({"us-central1": vertex.endpoint}, ION_DRAIN_SECONDS="0.3")
    async with SHAPES["three processes"](env) as chain:
        target = chain.router if name == "router_service" else chain.llm
        async with open_channel(target) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""), timeout=20)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            request = asyncio.create_task(chain.chat(unique("hello")))
            await vertex.wait_for_calls(1)
            chain.processes[name].signal(signal.SIGTERM)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            vertex.release()
            assert "fallback" not in (await request).json()["metadata"]
            assert await chain.processes[name].ended() == 0


async def test_readyz_fails_while_draining_though_requests_are_still_taken(vertex, unique):
    env = vertex_env({"us-central1": vertex.endpoint}, ION_DRAIN_SECONDS="1")
    async with SHAPES["standalone"](env) as chain:
        chain.processes["ion"].signal(signal.SIGTERM)
        async with asyncio.timeout(1):
            while (await chain.http.get("/readyz")).status_code != 503:
                pass
        assert (await chain.chat(unique("hello"))).status_code == 200
        assert await chain.processes["ion"].ended() == 0
