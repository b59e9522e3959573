"""How a service process runs, seen from outside a real one."""

from __future__ import annotations

import asyncio
import signal

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.errors import IonError, from_rpc
from chassis.server import CallGuard, listen, new_server
from chassis.settings import Bind
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.conftest import SERVICE, Serve
from tests.stack.harness import bound_to, start

ROUTER = "ion.router.v1.PersonaRouterService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
ANYWHERE = {"ION_ROUTER_BIND": "127.0.0.1:0"}


async def check(stub, service: str) -> int:
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5, wait_for_ready=True)
    return response.status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_health_says_serving_then_not_serving_then_the_process_ends(number):
    async with start("router", "router_service", env=ANYWHERE | {"ION_DRAIN_SECONDS": "0.5"}) as process:
        async with grpc.aio.insecure_channel(await bound_to(process)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            assert [await check(stub, service) for service in ("", ROUTER)] == [SERVING, SERVING]
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=ROUTER), timeout=20)
            assert (await watch.read()).status == SERVING
            process.signal(number)
            assert (await watch.read()).status == NOT_SERVING
            assert await check(stub, "") == NOT_SERVING  # it still answers while draining
            watch.cancel()
        assert await process.ended() == 0
        assert [record["message"] for record in process.logged("router_service")] == [
            "router_service serves gRPC",
            "router_service stopped",
        ]


async def test_unknown_service_is_not_found():
    async with (
        start("router", "router_service", env=ANYWHERE) as process,
        grpc.aio.insecure_channel(await bound_to(process)) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(health_pb2_grpc.HealthStub(channel), "no.such.Service")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_second_server_cannot_share_the_port():
    """gRPC's default would let it take half of the calls unnoticed."""
    async with start("router", "router_service", env=ANYWHERE) as process:
        env = {"ION_ROUTER_BIND": await bound_to(process)}
        async with start("second", "router_service", env=env) as second:
            assert await second.ended() == 2


async def test_guard_leaves_foreign_services_and_aborts_alone(serve: Serve):
    async def handle(request, context):
        await context.abort(grpc.StatusCode.ALREADY_EXISTS, "as it was said")

    echo = await serve(unary=handle, interceptors=[CallGuard()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.unary(b"")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.ALREADY_EXISTS, "as it was said")


async def test_guard_maps_errors_of_streams_too(serve: Serve):
    async def handle(request, context):
        yield b"first"
        raise ValueError("secret of the house")

    echo = await serve(stream=handle, interceptors=[CallGuard()])
    call = echo.stream(b"")
    assert await call.read() == b"first"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)


async def test_an_error_of_a_stream_has_all_its_details_after_messages_too(serve: Serve):
    async def handle(request, context):
        yield b"first"
        raise IonError(Reason.REASON_MODEL_QUOTA, "None left.", retry_after_seconds=7)

    call = (await serve(stream=handle, interceptors=[CallGuard()])).stream(b"")
    assert await call.read() == b"first"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "-1"
    error = from_rpc(caught.value, unreachable=Reason.REASON_INTERNAL)
    assert (error.reason, error.message, error.retry_after_seconds) == (Reason.REASON_MODEL_QUOTA, "None left.", 7)


async def test_ids_and_span_of_a_stream_last_until_its_end(serve: Serve, spans):
    seen = []

    async def handle(request, context):
        for message in (b"1", b"2"):
            seen.append((telemetry.current().request_id, len(spans.get_finished_spans())))
            yield message
        raise IonError(Reason.REASON_MODEL_INTERRUPTED)

    call = (await serve(stream=handle, interceptors=[CallGuard()])).stream(b"", metadata=(("x-request-id", "req-7"),))
    with pytest.raises(grpc.aio.AioRpcError):
        await _all_of(call)
    assert seen == [("req-7", 0)] * 2
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.status.is_ok) == (f"{SERVICE}/Stream", SpanKind.SERVER, False)


async def _all_of(call):
    return [message async for message in call]


@pytest.mark.parametrize("message", [b"", b"x" * 100_000], ids=["waiting", "sending"])
async def test_a_stream_is_closed_in_its_own_task_when_the_caller_leaves(serve: Serve, message):
    """Whether it waits for something or is held up by a caller that reads no further."""
    begun, closed, kept = [], asyncio.Queue(), []

    async def produce():
        begun.append(asyncio.current_task())
        try:
            yield message
            while message:
                yield message
            await asyncio.Event().wait()
        finally:
            closed.put_nowait(asyncio.current_task())

    def handle(request, context):
        kept.append(produce())  # so that no garbage collection closes it
        return kept[0]

    call = (await serve(stream=handle, interceptors=[CallGuard()])).stream(b"")
    assert await call.read() == message
    call.cancel()
    assert await asyncio.wait_for(closed.get(), 5) is begun[0]


async def test_cancellation_passes_the_guard(serve: Serve):
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(request, context):
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    echo = await serve(unary=handle, interceptors=[CallGuard()])
    call = echo.unary(b"")
    await asyncio.wait_for(started.wait(), 5)
    call.cancel()
    await asyncio.wait_for(cancelled.wait(), 5)


def test_an_address_that_is_not_ours_is_one_line(capsys):
    with pytest.raises(SystemExit):
        listen(Bind("203.0.113.1", 80), "ION_HTTP_BIND")
    assert capsys.readouterr().err.startswith("ion: ION_HTTP_BIND=203.0.113.1:80: cannot listen there")


async def test_callers_who_all_come_at_once_are_heard():
    """gRPC itself would refuse those beyond 3000 with a bare CANCELLED, before the service has seen them."""
    server = new_server()
    handler = grpc.unary_unary_rpc_method_handler(_answer)
    server.add_registered_method_handlers(SERVICE, {"Unary": handler})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(f"/{SERVICE}/Unary")
        answers = await asyncio.gather(*(method(b"here") for _ in range(5000)))
    await server.stop(None)
    assert answers == [b"here"] * 5000


async def _answer(request, _context):
    return request
