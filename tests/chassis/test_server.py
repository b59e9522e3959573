"""How a service process runs, seen from outside a real one."""

from __future__ import annotations

import asyncio
import signal

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.trace import SpanKind

from chassis import caller
from chassis.caller import NOBODY, Admitted, Caller, Shown
from chassis.errors import IonError, from_rpc
from chassis.observability import tracing
from chassis.server import CallGuard, _address, add_health_and_reflection, listen, new_server
from chassis.settings import Bind
from chassis.trust import ProvenServices
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.conftest import SERVICE, Serve
from tests.stack.harness import bound_to, start, until

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
            seen.append((tracing.current().request_id, len(spans.get_finished_spans())))
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


# Who comes in, in this process and over TCP.


class ScriptedDoor:
    """Lets in who shows the right key, as a caller of that name; remembers what it saw."""

    def __init__(self) -> None:
        self.shown: list[Shown] = []
        self.charged: list[tuple[str, str, int]] = []

    async def admit(self, shown: Shown) -> Admitted:
        self.shown.append(shown)
        if shown.api_key == "limited":
            raise IonError(Reason.REASON_RATE_LIMITED, retry_after_seconds=7)
        if shown.api_key != "good":
            raise IonError(Reason.REASON_UNAUTHENTICATED)
        return Admitted(Caller("key:good", "pro"))

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None:
        self.charged.append((shown.api_key, admitted.caller.principal, tokens))


TOKEN = "0123456789abcdef"
GOOD = (("x-api-key", "good"),)
OF_A_SERVICE = (("x-ion-service-token", TOKEN),)
CLAIM = (("x-ion-caller", "key:other;internal"),)


class Served:
    """What the handlers saw: for whom they were called. Each call uses 5 tokens."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []

    async def unary(self, request, context):
        self.callers.append(caller.current())
        caller.note_tokens(5)
        return b"1"

    async def stream(self, request, context):
        self.callers.append(caller.current())
        yield b"1"
        caller.note_tokens(5)
        yield b"2"


@pytest.fixture
def door() -> ScriptedDoor:
    return ScriptedDoor()


@pytest.fixture
def served() -> Served:
    return Served()


@pytest.fixture(params=["unary", "stream"])
async def call(request, serve: Serve, door: ScriptedDoor, served: Served):
    """`await call(metadata)`: one call of either kind, past the door, on a server that knows TOKEN."""
    guard = CallGuard(door, ProvenServices(TOKEN))
    echo = await serve(unary=served.unary, stream=served.stream, interceptors=[guard])

    async def once(metadata) -> None:
        if request.param == "unary":
            await echo.unary(b"", metadata=metadata)
        else:
            await _all_of(echo.stream(b"", metadata=metadata))

    return once


async def test_the_door_lets_in_and_the_call_is_charged_at_its_end(call, door, served):
    await call(GOOD)
    assert served.callers == [Caller("key:good", "pro")]
    await until_charged(door)
    assert door.charged == [("good", "key:good", 5)]


async def until_charged(door: ScriptedDoor) -> None:
    async def holds() -> bool:
        return bool(door.charged)

    await until(holds)


async def test_what_is_shown_is_what_came(call, door):
    await call((*GOOD, ("authorization", "Bearer abc")))
    (shown,) = door.shown
    assert (shown.authorization, shown.api_key) == ("Bearer abc", "good")
    assert shown.address in ("", "127.0.0.1")


@pytest.mark.parametrize("metadata", [(), (("x-api-key", "bad"),), CLAIM, (*CLAIM, ("x-ion-service-token", "guessed"))])
async def test_whoever_is_not_let_in_gets_nothing(call, served, metadata):
    """Not by saying that it calls for somebody either."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(metadata)
    error = from_rpc(caught.value, unreachable=Reason.REASON_INTERNAL)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert (error.reason, error.message) == (
        Reason.REASON_UNAUTHENTICATED,
        "The credentials are missing or not valid.",
    )
    assert served.callers == []


async def test_a_limit_tells_when_to_come_again(call, served):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call((("x-api-key", "limited"),))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    error = from_rpc(caught.value, unreachable=Reason.REASON_INTERNAL)
    assert (error.reason, error.retry_after_seconds) == (Reason.REASON_RATE_LIMITED, 7)
    assert served.callers == []


async def test_a_caller_cannot_say_that_it_is_another(call, served):
    await call(GOOD + CLAIM)
    assert served.callers == [Caller("key:good", "pro")]


async def test_a_service_says_for_whom_and_is_neither_asked_nor_charged(call, door, served):
    await call(OF_A_SERVICE + CLAIM)
    await call(OF_A_SERVICE)
    assert served.callers == [Caller("key:other", "internal"), NOBODY]
    assert door.shown == []
    assert door.charged == []


async def test_a_call_that_fails_or_is_left_is_charged_what_it_used(serve: Serve, door):
    used = asyncio.Event()

    async def fail(request, context):
        caller.note_tokens(3)
        raise IonError(Reason.REASON_MODEL_INTERRUPTED)

    async def stream(request, context):
        caller.note_tokens(4)
        yield b"1"
        used.set()
        await asyncio.Event().wait()

    echo = await serve(unary=fail, stream=stream, interceptors=[CallGuard(door)])
    with pytest.raises(grpc.aio.AioRpcError):
        await echo.unary(b"", metadata=GOOD)
    await until_charged(door)
    left = echo.stream(b"", metadata=GOOD)
    await left.read()
    await asyncio.wait_for(used.wait(), 5)
    left.cancel()

    async def both_are() -> bool:
        return len(door.charged) == 2

    await until(both_are)
    assert [tokens for _, _, tokens in door.charged] == [3, 4]


async def test_health_and_reflection_are_for_everybody(door):
    server = new_server(door)
    add_health_and_reflection(server, health_service.aio.HealthServicer(), SERVICE)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert await check(health_pb2_grpc.HealthStub(channel), "") == SERVING
    await server.stop(None)
    assert door.shown == []


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:198.51.100.1:4711", "198.51.100.1"),
        ("ipv6:%5B2001:db8::1%5D:4711", "2001:db8::1"),
        ("ipv6:[2001:db8::1]:4711", "2001:db8::1"),
        ("unix:", ""),
        ("inproc", ""),
    ],
)
def test_addresses_of_peers(peer, address):
    assert _address(peer) == address
