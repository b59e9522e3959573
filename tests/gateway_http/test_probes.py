"""What monitors and load balancers ask."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from grpc_health.v1 import health, health_pb2

from gateway_http.health import DATABASE
from ion.router.v1 import router_pb2
from tests.gateway_http.serving import gateway

PERSONAS = {"ListPersonas": router_pb2.ListPersonasResponse(count=4)}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def watched(**states: int):
    """A gateway that has just looked at services in these states."""
    servicer = health.aio.HealthServicer()
    for name, state in states.items():
        await servicer.set(name, state)
    async with gateway(PERSONAS, states=servicer) as (running, _):
        yield running


@pytest.mark.parametrize(
    ("states", "database", "status"),
    [
        ({}, None, "healthy"),
        ({DATABASE: SERVING}, {"connected": True}, "healthy"),
        ({DATABASE: NOT_SERVING}, {"connected": False}, "degraded"),
    ],
)
async def test_health_tells_of_the_database_where_the_router_does(states, database, status):
    async with watched(**states) as running:
        found = (await running.http.get("/health")).json()
    assert (found.get("database"), found["status"], found["pipeline_ready"]) == (database, status, True)
    assert found["personas"] == {"count": 4, "problem": ""}


async def test_a_draining_gateway_lives_and_is_not_ready():
    async with watched() as running:
        assert (await running.http.get("/readyz")).json() == {"status": "ready"}
        running.state.draining = True
        response = await running.http.get("/readyz")
        assert (response.status_code, response.json()["reason"]) == (503, "NOT_READY")
        assert response.headers["Retry-After"] == "1"
        assert (await running.http.get("/livez")).json() == {"status": "alive"}


async def test_without_the_services_behind_it_it_is_not_ready():
    async with watched(**{"": NOT_SERVING}) as running:
        assert (await running.http.get("/readyz")).status_code == 503
        assert (await running.http.get("/livez")).status_code == 200
