"""What the gateway knows of the services behind it, from real health services."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chassis import caller
from chassis.trust import SERVICE_TOKEN_KEY
from gateway_http import health as gateway_health
from gateway_http.health import DATABASE, REDIS, HealthMonitor
from ion.router.v1 import router_pb2, router_pb2_grpc

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def service(servicer, *add_others):
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    for add in add_others:
        add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield channel
        finally:
            await server.stop(None)


class Hanging(health_pb2_grpc.HealthServicer):
    async def Check(self, request, context):
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("redis", "enabled", "connected", "healthy"),
    [(None, False, False, True), (SERVING, True, True, True), (NOT_SERVING, True, False, False)],
)
async def test_redis_counts_where_it_is_configured(redis, enabled, connected, healthy):
    llm = health.aio.HealthServicer()
    if redis is not None:
        await llm.set(REDIS, redis)
    async with service(health.aio.HealthServicer()) as router_channel, service(llm) as llm_channel:
        monitor = HealthMonitor(router_channel, llm_channel)
        await monitor.poll()
    assert monitor.pipeline_ready
    assert (monitor.redis_enabled, monitor.redis_connected, monitor.healthy) == (enabled, connected, healthy)


@pytest.mark.parametrize(
    ("database", "connected", "healthy"), [(None, None, True), (SERVING, True, True), (NOT_SERVING, False, False)]
)
async def test_the_database_counts_where_the_router_speaks_of_it(database, connected, healthy):
    router = health.aio.HealthServicer()
    if database is not None:
        await router.set(DATABASE, database)
    async with service(router) as router_channel, service(health.aio.HealthServicer()) as llm_channel:
        monitor = HealthMonitor(router_channel, llm_channel)
        await monitor.poll()
    assert (monitor.database_connected, monitor.healthy) == (connected, healthy)
    assert monitor.pipeline_ready


async def test_a_service_that_is_not_serving_is_not_ready():
    router = health.aio.HealthServicer()
    await router.set("", NOT_SERVING)
    async with service(router) as router_channel, service(health.aio.HealthServicer()) as llm_channel:
        monitor = HealthMonitor(router_channel, llm_channel)
        await monitor.poll()
    assert (monitor.router, monitor.llm_gateway, monitor.pipeline_ready) == (False, True, False)


async def test_a_service_that_is_away_or_hangs_is_not_ready(monkeypatch):
    monkeypatch.setattr(gateway_health, "CHECK_TIMEOUT_SECONDS", 0.1)
    async with service(Hanging()) as hanging, grpc.aio.insecure_channel("127.0.0.1:1") as away:
        monitor = HealthMonitor(hanging, away)
        await asyncio.wait_for(monitor.poll(), 5)
    assert (monitor.router, monitor.llm_gateway, monitor.healthy) == (False, False, False)


async def test_redis_stays_configured_while_the_llm_gateway_is_away():
    llm = health.aio.HealthServicer()
    await llm.set(REDIS, SERVING)
    async with service(health.aio.HealthServicer()) as router_channel:
        async with service(llm) as llm_channel:
            monitor = HealthMonitor(router_channel, llm_channel)
            await monitor.poll()
            assert monitor.healthy
        monitor._llm_stub = health_pb2_grpc.HealthStub(grpc.aio.insecure_channel("127.0.0.1:1"))
        await monitor.poll()
    assert (monitor.redis_enabled, monitor.redis_connected) == (True, False)


async def test_polling_follows_changes_and_ends_with_the_block(monkeypatch):
    monkeypatch.setattr(gateway_health, "POLL_SECONDS", 0.01)
    router = health.aio.HealthServicer()
    async with service(router) as router_channel, service(health.aio.HealthServicer()) as llm_channel:
        monitor = HealthMonitor(router_channel, llm_channel)
        async with monitor.polling():
            assert monitor.pipeline_ready
            await router.set("", NOT_SERVING)
            async with asyncio.timeout(5):
                while monitor.router:
                    await asyncio.sleep(0.01)
    assert len(asyncio.all_tasks()) == 1


class Personas(router_pb2_grpc.PersonaRouterServiceServicer):
    """Answers with `response`, or hangs."""

    def __init__(self, response: router_pb2.ListPersonasResponse | None) -> None:
        self.response = response
        self.asked: list[tuple[router_pb2.ListPersonasRequest, dict[str, str], float]] = []

    async def ListPersonas(self, request, context):
        self.asked.append((request, dict(context.invocation_metadata()), context.time_remaining()))
        if self.response is None:
            await asyncio.Event().wait()
        return self.response


async def polled(personas: Personas, polls: int = 1) -> HealthMonitor:
    def add(server):
        router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(personas, server)

    async with (
        service(health.aio.HealthServicer(), add) as router_channel,
        service(health.aio.HealthServicer()) as llm_channel,
    ):
        monitor = HealthMonitor(router_channel, llm_channel)
        for _ in range(polls):
            await asyncio.wait_for(monitor.poll(), 5)
    return monitor


@pytest.mark.parametrize("problem", ["", "riri.toml: name: must be text"])
async def test_persona_files_that_are_not_in_use_are_not_healthy(problem, monkeypatch):
    monkeypatch.setattr(caller, "_shown", ((SERVICE_TOKEN_KEY, "0123456789abcdef"),))
    personas = Personas(router_pb2.ListPersonasResponse(count=4, problem=problem))
    monitor = await polled(personas)
    assert (monitor.persona_count, monitor.persona_problem) == (4, problem)
    assert monitor.healthy is not bool(problem)
    assert monitor.pipeline_ready  # the ones before them answer
    ((request, metadata, seconds),) = personas.asked
    assert request.count_only
    assert metadata["traceparent"].endswith("-00")  # sampled by nobody
    assert metadata[SERVICE_TOKEN_KEY] == "0123456789abcdef"
    assert seconds == pytest.approx(gateway_health.CHECK_TIMEOUT_SECONDS, abs=0.5)


async def test_personas_stay_as_last_seen_while_nobody_says(monkeypatch):
    monkeypatch.setattr(gateway_health, "CHECK_TIMEOUT_SECONDS", 0.2)
    personas = Personas(router_pb2.ListPersonasResponse(count=4, problem="bad"))
    original = personas.ListPersonas

    async def once_then_hang(request, context):
        answer = await original(request, context)
        personas.response = None
        return answer

    monkeypatch.setattr(personas, "ListPersonas", once_then_hang)
    monitor = await polled(personas, polls=2)
    assert len(personas.asked) == 2
    assert (monitor.persona_count, monitor.persona_problem) == (4, "bad")
