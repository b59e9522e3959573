"""What the gateway knows of the services behind it, kept up to date in the background: reading it never waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import caller
from chassis.observability import tracing
from ion.router.v1 import router_pb2, router_pb2_grpc

POLL_SECONDS = 0.5
CHECK_TIMEOUT_SECONDS = 1.0
# The names under which the LLM gateway publishes its Redis connection, and the router its database, in their health
# services.
REDIS = "redis"
DATABASE = "database"
# A trace that nobody samples: what is asked twice a second would bury the traces of requests.
_UNSAMPLED = ((tracing.TRACEPARENT_KEY, f"00-{1:032x}-{1:016x}-00"),)


class HealthMonitor:
    """Polls the health services of the router and the LLM gateway."""

    def __init__(self, router_channel: grpc.aio.Channel, llm_channel: grpc.aio.Channel) -> None:
        self._router_stub = health_pb2_grpc.HealthStub(router_channel)
        self._personas_stub = router_pb2_grpc.PersonaRouterServiceStub(router_channel)
        self._llm_stub = health_pb2_grpc.HealthStub(llm_channel)
        self.router = False
        self.llm_gateway = False
        self.redis_enabled = False
        self.redis_connected = False
        self.database_connected: bool | None = None  # None where the router does not say
        self.persona_count = 0
        self.persona_problem = ""

    @property
    def pipeline_ready(self) -> bool:
        return self.router and self.llm_gateway

    @property
    def healthy(self) -> bool:
        """Nothing is missing; a service that is not may well answer."""
        connected = (self.redis_connected or not self.redis_enabled) and self.database_connected is not False
        return self.pipeline_ready and connected and not self.persona_problem

    async def poll(self) -> None:
        """One look at everything, at most CHECK_TIMEOUT_SECONDS long."""
        router, llm, redis, database, personas = await asyncio.gather(
            _check(self._router_stub, ""),
            _check(self._llm_stub, ""),
            _check(self._llm_stub, REDIS),
            _check(self._router_stub, DATABASE),
            _count_personas(self._personas_stub),
        )
        self.router = router is True
        self.llm_gateway = llm is True
        self.redis_connected = redis is True
        self.database_connected = database if self.router else None
        if self.llm_gateway:
            self.redis_enabled = redis is not None
        if personas is not None:
            self.persona_count, self.persona_problem = personas.count, personas.problem

    @asynccontextmanager
    async def polling(self) -> AsyncIterator[None]:
        """Look once, then keep looking until the block ends."""
        await self.poll()
        task = asyncio.create_task(self._keep_polling())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self.poll()


async def _check(stub: health_pb2_grpc.HealthStub, service: str) -> bool | None:
    """Whether it serves; None where the peer answers that it has no such service."""
    try:
        request = health_pb2.HealthCheckRequest(service=service)
        response = await stub.Check(request, timeout=CHECK_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return None if error.code() is grpc.StatusCode.NOT_FOUND else False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


async def _count_personas(
    stub: router_pb2_grpc.PersonaRouterServiceStub,
) -> router_pb2.ListPersonasResponse | None:
    """How many personas there are and what is wrong with the newest; None where nobody says."""
    request = router_pb2.ListPersonasRequest(count_only=True)
    try:
        response: router_pb2.ListPersonasResponse = await stub.ListPersonas(
            request, timeout=CHECK_TIMEOUT_SECONDS, metadata=_UNSAMPLED + caller.outgoing_metadata()
        )
    except grpc.aio.AioRpcError:
        return None
    return response
