"""Router and LLM gateway in this process, joined by in-process channels: the same servicers, no sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2_grpc

from chassis.caller import Door
from chassis.database import Database, NoDatabase
from chassis.local_channel import LocalServer
from chassis.server import SERVING, CallGuard, Hosted, add_health_and_reflection, add_port, drain, new_server
from chassis.settings import Bind
from chassis.transport import Transport, TransportSettings
from chassis.trust import EverybodyIsTrusted
from llm_gateway.assembly import open_llm_gateway
from llm_gateway.settings import LlmSettings
from router_service.assembly import open_persona_router
from router_service.database_health import publishing
from router_service.settings import RouterSettings


@dataclass(frozen=True, slots=True)
class Part:
    """One service of the pipeline, with its health."""

    hosted: Hosted
    health: health_service.aio.HealthServicer
    server: LocalServer

    @property
    def channel(self) -> grpc.aio.Channel:
        return self.server.channel()


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Both services, ready."""

    router: Part
    llm: Part


@asynccontextmanager
async def open_pipeline(
    router_settings: RouterSettings, llm_settings: LlmSettings, database: Database | None = None
) -> AsyncIterator[Pipeline]:
    """Both services until the block ends; calls in flight then get `grace_seconds`. `database` is to know the router's
    HISTORY; without one there are no sessions."""
    llm_health, router_health = health_service.aio.HealthServicer(), health_service.aio.HealthServicer()
    async with open_llm_gateway(llm_settings, llm_health) as hosted_llm:
        llm = await _host(hosted_llm, llm_health)
        async with (
            publishing(database, router_health) if database else nullcontext(),
            open_persona_router(router_settings, llm.channel, database or NoDatabase()) as hosted_router,
        ):
            router = await _host(hosted_router, router_health)
            try:
                yield Pipeline(router, llm)
            finally:
                await router.server.stop(router_settings.grace_seconds)
                await llm.server.stop(llm_settings.grace_seconds)


async def _host(hosted: Hosted, health: health_service.aio.HealthServicer) -> Part:
    server = LocalServer([CallGuard(trust=EverybodyIsTrusted())])
    hosted.add_to(server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set(hosted.name, SERVING)
    return Part(hosted, health, server)


@asynccontextmanager
async def listening(
    part: Part, bind: Bind, variable: str, settings: TransportSettings, door: Door
) -> AsyncIterator[Bind]:
    """The part on a gRPC port as well, for clients outside, who come in by the door; yields where."""
    transport = Transport.of(settings)
    server = new_server(door, transport.trust)
    part.hosted.add_to(server)
    add_health_and_reflection(server, part.health, part.hosted.name)
    port = add_port(server, bind, variable, transport)
    await server.start()
    try:
        yield Bind(bind.host, port)
    finally:
        await drain(server, part.health, settings)
