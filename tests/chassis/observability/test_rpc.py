"""Each call is told once, by its caller and by its service: in this process and over TCP."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.caller import Admitted, Shown
from chassis.channel import invoke, invoke_stream
from chassis.deadline import Deadline
from chassis.errors import IonError
from chassis.observability import rpc, tracing
from chassis.server import CallGuard, add_health_and_reflection, new_server
from chassis.telemetry import RPC_CLIENT_DURATION, RPC_METHOD, RPC_SERVER_DURATION, RPC_STATUS
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.conftest import SERVICE, Hanging, Serve
from tests.observed import measured
from tests.stack.harness import until

UNARY, STREAM = f"{SERVICE}/Unary", f"{SERVICE}/Stream"
TARGET = "dns:///echo:50051"


@pytest.fixture
def seen():
    with measured() as seen:
        yield seen


def call(echo, seconds: float = 5.0):
    method = Deadline.after(seconds)
    return invoke(echo.unary, UNARY, b"", method, unreachable=Reason.REASON_ROUTER_UNAVAILABLE, target=TARGET)


def stream(echo):
    deadline = Deadline.after(5)
    return invoke_stream(
        echo.stream, STREAM, b"", deadline, unreachable=Reason.REASON_ROUTER_UNAVAILABLE, target=TARGET
    )


async def ended(spans, count: int) -> dict[SpanKind, object]:
    """The spans by kind, once there are so many: the service's may end after the caller has its answer."""

    async def all_are() -> bool:
        return len(spans.get_finished_spans()) == count

    await until(all_are)
    return {span.kind: span for span in spans.get_finished_spans()}


async def same(request, context):
    return request


async def test_a_unary_call_has_a_span_on_each_side_one_below_the_other(serve: Serve, spans, seen):
    echo = await serve(unary=same, interceptors=[CallGuard()])
    await call(echo)
    told = await ended(spans, 2)
    made, served = told[SpanKind.CLIENT], told[SpanKind.SERVER]
    assert served.parent.span_id == made.context.span_id
    assert (made.name, served.name) == (UNARY, UNARY)
    assert dict(made.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": UNARY,
        "rpc.response.status_code": "OK",
        "server.address": "echo",
        "server.port": 50051,
    }
    assert dict(served.attributes) == {
        "rpc.system.name": "grpc",
        "rpc.method": UNARY,
        "rpc.response.status_code": "OK",
    }
    for metric in (RPC_CLIENT_DURATION, RPC_SERVER_DURATION):
        (point,) = seen.points(metric)
        assert dict(point.attributes) == dict(served.attributes)
        assert point.count == 1
        assert 0 < point.sum < 5


@pytest.mark.parametrize("method", ["unary", "stream"])
@pytest.mark.parametrize(
    ("metric", "kind"), [(RPC_CLIENT_DURATION, SpanKind.CLIENT), (RPC_SERVER_DURATION, SpanKind.SERVER)]
)
async def test_each_sides_span_is_the_exemplar_of_its_duration(serve: Serve, spans, seen, metric, kind, method):
    async def handle(request, context):
        yield b"1"

    echo = await serve(unary=same, stream=handle, interceptors=[CallGuard()])
    if method == "unary":
        await call(echo)
    else:
        assert [message async for message in stream(echo)] == [b"1"]
    told = await ended(spans, 2)
    (exemplar,) = seen.points(metric)[0].exemplars
    assert exemplar.span_id == told[kind].context.span_id


async def test_a_stream_tells_of_its_messages(serve: Serve, spans, seen):
    async def handle(request, context):
        for message in (b"1", b"2", b"3"):
            yield message

    async for _ in stream(await serve(stream=handle, interceptors=[CallGuard()])):
        assert SpanKind.CLIENT not in {span.kind for span in spans.get_finished_spans()}
    told = await ended(spans, 2)
    assert told[SpanKind.SERVER].parent.span_id == told[SpanKind.CLIENT].context.span_id
    for span in told.values():
        assert span.attributes[telemetry.COUNT_OF_TEXTS] == 3
        assert 0 < span.attributes[telemetry.FIRST_MESSAGE] < 5
    for metric in (RPC_CLIENT_DURATION, RPC_SERVER_DURATION):
        assert seen.value(metric, {RPC_METHOD: STREAM, RPC_STATUS: "OK"}) == 1


def test_the_time_to_the_first_message_is_that_of_the_first(spans, monkeypatch):
    clock = iter([100.0, 100.25, 103.0])
    monkeypatch.setattr(rpc, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    with rpc.ServedCall(STREAM) as served:
        served.note_message()
        served.note_message()
    (span,) = spans.get_finished_spans()
    assert span.attributes[telemetry.FIRST_MESSAGE] == 0.25


def test_all_calls_that_are_under_way_are_counted():
    method = f"{SERVICE}/Counted"
    counts = []
    with rpc.ServedCall(method):
        with rpc.ServedCall(method):
            counts.append(dict(active())[method])
        counts.append(dict(active())[method])
    assert (counts, dict(active())[method]) == ([2, 1], 0)


class Secret(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "status", "made_why", "served_why", "served_is_error"),
    [
        (IonError(Reason.REASON_PERSONA_NOT_FOUND), "NOT_FOUND", "PERSONA_NOT_FOUND", "PERSONA_NOT_FOUND", False),
        (IonError(Reason.REASON_MODEL_UNAVAILABLE), "UNAVAILABLE", "MODEL_UNAVAILABLE", "MODEL_UNAVAILABLE", True),
        (Secret("of the house"), "INTERNAL", "INTERNAL", "Secret", True),
    ],
)
async def test_a_call_that_fails_says_why(
    serve: Serve, spans, seen, error, status, made_why, served_why, served_is_error
):
    async def handle(request, context):
        raise error

    async def handle_stream(request, context):
        yield b"1"
        raise error

    echo = await serve(unary=handle, stream=handle_stream, interceptors=[CallGuard()])
    for number, failing in enumerate((call(echo), anext(aiter(_rest(stream(echo))))), 1):
        with pytest.raises(IonError):
            await failing
        told = await ended(spans, 2 * number)
        made, served = told[SpanKind.CLIENT], told[SpanKind.SERVER]
        assert [span.attributes[RPC_STATUS] for span in (made, served)] == [status, status]
        assert (made.attributes["error.type"], served.attributes["error.type"]) == (made_why, served_why)
        assert (made.status.is_ok, served.status.is_ok) == (False, not served_is_error)
        assert "of the house" not in made.to_json() + served.to_json()
    for metric, why in ((RPC_CLIENT_DURATION, made_why), (RPC_SERVER_DURATION, served_why)):
        assert seen.value(metric, {RPC_STATUS: status, "error.type": why}) == 2
        assert seen.value(metric) == 2


async def _rest(messages):
    """What comes after the first."""
    await anext(messages)
    async for message in messages:
        yield message


async def test_the_status_is_the_one_that_was_received(serve: Serve, spans, seen):
    """Not the one of the error that callers get for it."""
    with pytest.raises(IonError) as caught:
        await call(await serve())
    assert caught.value.code is grpc.StatusCode.INTERNAL
    (made,) = spans.get_finished_spans()
    assert (made.attributes[RPC_STATUS], made.attributes["error.type"]) == ("UNIMPLEMENTED", "INTERNAL")


class ClosedDoor:
    async def admit(self, shown: Shown) -> Admitted:
        raise IonError(Reason.REASON_UNAUTHENTICATED)

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None: ...


async def test_calls_that_the_door_refuses_are_told_too(serve: Serve, spans, seen):
    echo = await serve(unary=same, interceptors=[CallGuard(ClosedDoor())])
    with pytest.raises(IonError):
        await call(echo)
    served = (await ended(spans, 2))[SpanKind.SERVER]
    assert (served.attributes["error.type"], served.status.is_ok) == ("UNAUTHENTICATED", True)
    assert seen.value(RPC_SERVER_DURATION, {RPC_STATUS: "UNAUTHENTICATED"}) == 1


# Calls that nobody waits for any longer


@pytest.mark.parametrize("method", ["unary", "stream"])
async def test_a_call_that_is_left_ends_once_on_each_side(serve: Serve, spans, seen, method):
    hanging = Hanging()

    async def handle_stream(request, context):
        yield b"1"
        await hanging(request, context)

    echo = await serve(unary=hanging, stream=handle_stream, interceptors=[CallGuard()])
    called = asyncio.create_task(call(echo) if method == "unary" else anext(aiter(_rest(stream(echo)))))
    await hanging.started.wait()
    name = UNARY if method == "unary" else STREAM
    assert dict(active())[name] == 1
    called.cancel()
    await asyncio.wait([called])
    for span in (await ended(spans, 2)).values():
        assert (span.attributes[RPC_STATUS], span.attributes["error.type"]) == ("CANCELLED", "CANCELLED")
        assert span.status.is_ok
    assert dict(active())[name] == 0
    for metric in (RPC_CLIENT_DURATION, RPC_SERVER_DURATION):
        assert seen.value(metric, {RPC_STATUS: "CANCELLED"}) == seen.value(metric) == 1


def active() -> list[tuple[str, float]]:
    return [(str(attributes[RPC_METHOD]), value) for value, attributes in rpc.active_calls()]


async def test_a_stream_that_is_closed_early_has_ended(serve: Serve, spans):
    hanging = Hanging()

    async def handle(request, context):
        yield b"1"
        await hanging(request, context)

    async with aclosing(stream(await serve(stream=handle, interceptors=[CallGuard()]))) as messages:
        await anext(messages)
    for span in (await ended(spans, 2)).values():
        assert span.attributes[RPC_STATUS] == "CANCELLED"


async def test_a_call_that_cannot_be_made_ends_too(spans):
    def closed(*_, **__):
        raise grpc.aio.UsageError("Channel is closed.")

    for failing in (
        invoke(closed, UNARY, b"", Deadline.after(5), unreachable=Reason.REASON_ROUTER_UNAVAILABLE),
        anext(invoke_stream(closed, STREAM, b"", Deadline.after(5), unreachable=Reason.REASON_ROUTER_UNAVAILABLE)),
    ):
        with pytest.raises(grpc.aio.UsageError):
            await failing
    assert [span.attributes["error.type"] for span in spans.get_finished_spans()] == ["UsageError"] * 2


# What is not told


async def test_health_and_reflection_are_not_told(spans, seen):
    server = new_server()
    add_health_and_reflection(server, health_service.aio.HealthServicer(), SERVICE)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    await server.stop(None)
    assert spans.get_finished_spans() == ()
    assert seen.points(RPC_SERVER_DURATION) == []


async def test_measured_without_tracing_and_nothing_with_neither(serve: Serve):
    echo = await serve(unary=same, interceptors=[CallGuard()])
    with measured() as seen:
        await call(echo)
        assert seen.value(RPC_SERVER_DURATION) == 1
        assert seen.points(RPC_SERVER_DURATION)[0].exemplars == []
    await call(echo)
    assert seen.value(RPC_SERVER_DURATION) == 1


@pytest.mark.parametrize(("error", "is_defect"), [(Secret(), True), (IonError(Reason.REASON_OVERLOADED), False)])
async def test_a_defect_is_logged_with_the_ids_of_its_call(serve: Serve, spans, monkeypatch, error, is_defect):
    """Also where the call brings none; what the service had to say is no defect."""
    logged = []

    class Noting(logging.Handler):
        def emit(self, record):
            logged.append((record.getMessage(), tracing.current().trace_id))

    monkeypatch.setattr(rpc._log, "handlers", [Noting()])

    async def handle(request, context):
        raise error

    echo = await serve(unary=handle, interceptors=[CallGuard()])
    with pytest.raises(grpc.aio.AioRpcError):
        await echo.unary(b"")
    (served,) = (await ended(spans, 1)).values()
    assert logged == [(f"defect in {UNARY}", f"{served.context.trace_id:032x}")] * is_defect


# Addresses


@pytest.mark.parametrize(
    ("target", "address"),
    [
        ("", ("inproc", None)),
        ("llm:50052", ("llm", 50052)),
        ("dns:///llm.ion.svc:50052", ("llm.ion.svc", 50052)),
        ("dns://10.0.0.53/llm:50052", ("llm", 50052)),
        ("ipv4:10.0.0.1:50052", ("10.0.0.1", 50052)),
        ("[2001:db8::1]:50052", ("2001:db8::1", 50052)),
        ("ipv4:10.0.0.1:50052,10.0.0.2:50052", ("ipv4:10.0.0.1:50052,10.0.0.2:50052", None)),
        ("unix:///run/ion.sock", ("unix:///run/ion.sock", None)),
    ],
)
def test_addresses(target, address):
    told = rpc.address_of(target)
    assert (told[telemetry.SERVER_ADDRESS], told.get(telemetry.SERVER_PORT)) == address


@given(st.text())
def test_whatever_the_target_there_is_an_address(target):
    assert rpc.address_of(target)[telemetry.SERVER_ADDRESS]
