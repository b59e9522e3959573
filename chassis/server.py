"""How a service process runs: the gRPC server, its guard, health, reflection, signals and drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from chassis.access import AccessSettings, open_entrance
from chassis.caller import (
    API_KEY_KEY,
    AUTHORIZATION_KEY,
    CALLER_KEY,
    NOBODY,
    Caller,
    Door,
    OpenDoor,
    Shown,
    enter,
    show,
)
from chassis.channel import MAX_MESSAGE_BYTES, compression_of
from chassis.database import Database, History
from chassis.errors import STATUS_DETAILS_KEY, IonError, to_status
from chassis.observability import observing, tracing
from chassis.observability.process_metrics import measuring_lag
from chassis.observability.rpc import ServedCall
from chassis.settings import Bind, Settings, stop
from chassis.transport import PLAIN, Transport
from chassis.trust import SERVICE_TOKEN_KEY, ProvenServices, Trust
from ion.error.v1.reason_pb2 import Reason

_log = logging.getLogger(__name__)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

# Tells gRPC clients not to try again by themselves: the failure is an answer, and whoever wants another attempt asks.
_NO_TRANSPARENT_RETRY = ("grpc-retry-pushback-ms", "-1")


@dataclass(frozen=True, slots=True)
class Hosted:
    """A service ready to be hosted: its full name, and what adds its servicer to a server, real or local."""

    name: str
    add_to: Callable[[Any], None]


OpenService = Callable[[health_service.aio.HealthServicer, Database], AbstractAsyncContextManager[Hosted]]


class CallGuard(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Around every ION method: takes on the caller's ids, opens the server span, admits the caller, and turns errors
    into statuses. By default everybody may come in, and nobody may speak for others."""

    def __init__(self, door: Door | None = None, trust: Trust | None = None) -> None:
        self._door = door or OpenDoor()
        self._trust = trust or ProvenServices()
        self._guarded: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith("/grpc."):
            return handler
        known, guarded = self._guarded.get(details.method, (None, None))
        if known is not handler:
            guarded = self._guard(handler, details.method)
            self._guarded[details.method] = (handler, guarded)
        return guarded

    def _guard(self, handler: Any, method: str) -> Any:
        codec = {
            "request_deserializer": handler.request_deserializer,
            "response_serializer": handler.response_serializer,
        }
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._guard_unary(handler.unary_unary, method), **codec)
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(self._guard_stream(handler.unary_stream, method), **codec)
        return handler

    def _guard_unary(self, behaviour: Callable[..., Awaitable[Any]], method: str) -> Callable[..., Awaitable[Any]]:
        name = method.lstrip("/")

        async def guarded(request: Any, context: grpc.aio.ServicerContext) -> Any:
            metadata = _take_on_ids(context)
            try:
                with ServedCall(name):
                    async with self._admitted(metadata, context):
                        response = await behaviour(request, context)
            except Exception as error:
                await _abort(context, error)
            await _compress(response, context)
            return response

        return guarded

    def _guard_stream(
        self, behaviour: Callable[..., AsyncGenerator[Any, None]], method: str
    ) -> Callable[..., Awaitable[None]]:
        """It writes the messages itself: a generator would be left to the garbage collector where the caller goes away
        while a message is sent, and with it the calls below."""
        name = method.lstrip("/")

        async def guarded(request: Any, context: grpc.aio.ServicerContext) -> None:
            metadata = _take_on_ids(context)
            try:
                with ServedCall(name) as served:
                    async with self._admitted(metadata, context), aclosing(behaviour(request, context)) as messages:
                        async for message in messages:
                            served.note_message()
                            await context.write(message)
            except Exception as error:
                await _abort(context, error)

        return guarded

    @asynccontextmanager
    async def _admitted(self, metadata: dict[str, str], context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
        """The caller as long as the block lasts; what it used is charged at the end, unless a service called for it and
        does that itself. Raises IonError where it is not let in."""
        if self._trust.trusts(metadata.get(SERVICE_TOKEN_KEY, ""), context.auth_context):
            known = metadata.get(CALLER_KEY)
            enter(Caller.from_header(known) if known else NOBODY)
            yield
            return
        shown = Shown(metadata.get(AUTHORIZATION_KEY, ""), metadata.get(API_KEY_KEY, ""), _address(context.peer()))
        admitted = await self._door.admit(shown)
        meter = enter(admitted.caller)
        try:
            yield
        finally:
            if meter.tokens:
                self._door.charge(shown, admitted, meter.tokens)


async def _compress(response: Any, context: grpc.aio.ServicerContext) -> None:
    """Before it is sent. gRPC heeds the choice for metadata that are sent on their own alone."""
    compression = compression_of(response)
    if compression:
        context.set_compression(compression)
        await context.send_initial_metadata(())


def _take_on_ids(context: grpc.aio.ServicerContext) -> dict[str, str]:
    """The metadata of the call, whose ids are taken on."""
    metadata = dict(context.invocation_metadata() or ())
    tracing.enter(
        metadata.get(tracing.REQUEST_ID_KEY),
        metadata.get(tracing.TRACEPARENT_KEY),
        metadata.get(tracing.TRACESTATE_KEY, ""),
        metadata.get(tracing.BAGGAGE_KEY, ""),
    )
    return metadata


def _address(peer: str) -> str:
    """The peer's address without its port: "ipv4:127.0.0.1:4711" -> "127.0.0.1"."""
    return peer.partition(":")[2].rpartition(":")[0].strip("[]").replace("%5B", "").replace("%5D", "")


async def _abort(context: grpc.aio.ServicerContext, error: Exception) -> None:
    """End the call with the error's status. What is not an IonError is a defect, and nameless outside."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, IonError):
        error = IonError(Reason.REASON_INTERNAL)
    details = (STATUS_DETAILS_KEY, to_status(error).SerializeToString())
    await context.abort(error.code, error.message, (details, _NO_TRANSPARENT_RETRY))


def new_server(door: Door | None = None, trust: Trust | None = None) -> grpc.aio.Server:
    """A server with the guard of `CallGuard`."""
    options = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # Without this a second process could bind the same port and take half of the calls unnoticed.
        ("grpc.so_reuseport", 0),
        # gRPC's own limits refuse with a bare CANCELLED what waits for the event loop (all beyond 3000 calls, at random
        # from 1000 on). What a service does not take on it refuses itself, with a reason.
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 100_000),
        # Clients re-resolve when a connection ends, and so find new replicas.
        ("grpc.max_connection_age_ms", 300_000),
        ("grpc.max_connection_age_grace_ms", 60_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    return grpc.aio.server(interceptors=[CallGuard(door, trust)], options=options)


def listen(bind: Bind, variable: str) -> socket.socket:
    """A listening socket, or the end of the process with one line."""
    listener = socket.socket(socket.AF_INET6 if ":" in bind.host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bind.host, bind.port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        stop(f"{variable}={bind}: cannot listen there: {(error.strerror or 'bad address').lower()}")
    return listener


def add_port(server: grpc.aio.Server, bind: Bind, variable: str, transport: Transport = PLAIN) -> int:
    """Listen; the port, which the system chose where `bind.port` is 0. Ends the process where it is not to be had."""
    listen(bind, variable).close()  # gRPC's own refusal says neither which setting nor why
    credentials = transport.server_credentials()
    return int(server.add_secure_port(str(bind), credentials) if credentials else server.add_insecure_port(str(bind)))


def add_health_and_reflection(server: grpc.aio.Server, health: health_service.aio.HealthServicer, *names: str) -> None:
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*names, health_name, reflection.SERVICE_NAME), server)


def run(
    service: str, settings: AccessSettings, bind: Bind, variable: str, open_service: OpenService, *histories: History
) -> None:
    """Run one service until SIGTERM or SIGINT, then drain it. `variable` is the setting that `bind` comes from;
    `histories` are the tables that the service keeps something in."""
    with observing(service, settings):
        uvloop.run(_host(service, settings, bind, variable, open_service, *histories))


async def _host(
    service: str, settings: AccessSettings, bind: Bind, variable: str, open_service: OpenService, *histories: History
) -> None:
    stopping = stop_signal()
    transport = Transport.of(settings)
    show(*transport.shown)
    health = health_service.aio.HealthServicer()
    await health.set("", NOT_SERVING)
    async with (
        measuring_lag(),
        open_entrance(settings, *histories) as entrance,
        open_service(health, entrance.database) as hosted,
    ):
        server = new_server(entrance.door, transport.trust)
        hosted.add_to(server)
        add_health_and_reflection(server, health, hosted.name)
        port = add_port(server, bind, variable, transport)
        settle()
        await server.start()
        for name in ("", hosted.name):
            await health.set(name, SERVING)
        _log.info("%s serves gRPC", service, extra={"bind": str(Bind(bind.host, port))})
        await stopping.wait()
        await drain(server, health, settings)
    _log.info("%s stopped", service)


def settle() -> None:
    """Take what the start has made out of garbage collection, once, before the first request: each full collection
    would walk all of it and stop the process for 25 ms (P99 at 16 connections 31 ms, with this 8 ms)."""
    gc.collect()
    gc.freeze()


async def drain(server: grpc.aio.Server, health: health_service.aio.HealthServicer, settings: Settings) -> None:
    """NOT_SERVING first, so that load balancers send nothing new, then let the calls in flight end."""
    await health.enter_graceful_shutdown()
    await asyncio.sleep(settings.drain_seconds)
    await server.stop(settings.grace_seconds)


def stop_signal() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping
