"""What monitors and load balancers ask."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.datastructures import State
from msgspec import UNSET

from gateway_http import errors, schemas
from gateway_http.health import HealthMonitor


@get("/health", tags=["health"])
async def health(state: State) -> schemas.Health:
    """What works, as last seen; never waits for a service that is away."""
    monitor: HealthMonitor = state.monitor
    database = monitor.database_connected
    return schemas.Health(
        status="healthy" if monitor.healthy else "degraded",
        version=state.version,
        pipeline_ready=monitor.pipeline_ready,
        router=monitor.router,
        llm_gateway=monitor.llm_gateway,
        redis_cache=schemas.RedisCache(monitor.redis_enabled, monitor.redis_connected),
        personas=schemas.PersonaFiles(monitor.persona_count, monitor.persona_problem),
        database=UNSET if database is None else schemas.DatabaseConnection(database),
    )


@get("/livez", tags=["health"])
async def livez() -> schemas.Alive:
    """The process answers."""
    return schemas.Alive("alive")


@get("/readyz", tags=["health"])
async def readyz(state: State) -> Response[Any]:
    """Whether requests should be sent here."""
    if state.draining or not state.monitor.pipeline_ready:
        detail = "The service is shutting down." if state.draining else "The services behind are not ready."
        return errors.problem(503, detail, "NOT_READY", {"Retry-After": "1"})
    return Response(schemas.Alive("ready"))
