"""Servers of both kinds for the same tests: in this process without sockets, and over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.local_channel import LocalServer
from chassis.observability import tracing
from tests.observed import recorded_spans

SERVICE = "ion.test.v1.EchoService"


def _same(message: bytes) -> bytes:
    return message


class Hanging:
    """A handler that waits until it is cancelled, and says so."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, request, context):
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class Echo:
    """Methods on bytes, given by the test as coroutine functions or async generators."""

    def __init__(self, channel: grpc.aio.Channel, server: Any, stop: Callable[[float], Awaitable[None]]) -> None:
        self.server = server
        self.stop = stop
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary", request_serializer=_same, response_deserializer=_same)
        self.stream = channel.unary_stream(f"/{SERVICE}/Stream", request_serializer=_same, response_deserializer=_same)
        self.unknown = channel.unary_unary(f"/{SERVICE}/Unknown", request_serializer=_same, response_deserializer=_same)


def _handlers(unary: Any, stream: Any) -> dict[str, grpc.RpcMethodHandler]:
    handlers = {}
    if unary:
        handlers["Unary"] = grpc.unary_unary_rpc_method_handler(unary, _same, _same)
    if stream:
        handlers["Stream"] = grpc.unary_stream_rpc_method_handler(stream, _same, _same)
    return handlers


Serve = Callable[..., Awaitable[Echo]]


async def _serve_local(unary: Any, stream: Any, interceptors: Sequence[Any]) -> Echo:
    server = LocalServer(interceptors)
    server.add_registered_method_handlers(SERVICE, _handlers(unary, stream))
    return Echo(server.channel(), server, server.stop)


async def _serve_tcp(unary: Any, stream: Any, interceptors: Sequence[Any]) -> Echo:
    server = grpc.aio.server(interceptors=interceptors)
    server.add_registered_method_handlers(SERVICE, _handlers(unary, stream))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    return Echo(grpc.aio.insecure_channel(f"127.0.0.1:{port}"), server, server.stop)


@pytest.fixture(params=["local", "tcp"])
async def serve(request: pytest.FixtureRequest) -> AsyncIterator[Serve]:
    """`await serve(unary=..., stream=..., interceptors=[...])` gives an Echo."""
    started: list[Echo] = []

    async def start(unary: Any = None, stream: Any = None, interceptors: Sequence[Any] = ()) -> Echo:
        how = _serve_local if request.param == "local" else _serve_tcp
        started.append(await how(unary, stream, interceptors))
        return started[-1]

    yield start
    for echo in started:
        await echo.stop(0)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Tracing is on, for traces that the caller has not sampled too; the spans that have ended."""
    with recorded_spans() as exporter:
        yield exporter


@pytest.fixture(autouse=True)
def no_call() -> Iterator[None]:
    """What a test takes on is not the next one's."""
    before = tracing._current.set(tracing.CallContext())
    yield
    tracing._current.reset(before)
