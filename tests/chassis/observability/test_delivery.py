"""What the receiver does not take is dropped and counted, told once, and waited for by nobody."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import grpc
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from chassis import telemetry
from chassis.observability import delivery, exporters
from tests.observed import measured
from tests.otlp import Receiver

SECONDS = 20.0
NEVER = str(3600_000)  # milliseconds


@pytest.fixture(autouse=True)
def _as_at_the_start(monkeypatch):
    fresh = {signal: delivery.Delivery(signal) for signal in exporters.SIGNALS}
    monkeypatch.setattr(delivery, "_deliveries", fresh)


@pytest.fixture
async def receiver(monkeypatch) -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", NEVER)
        yield receiver


class Spans:
    """Made and sent as a process does it, and when the test says so."""

    def __init__(self) -> None:
        self.exporter = exporters.new_span_exporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(delivery.span_batches(self.exporter))
        self._tracer = self.provider.get_tracer("test")

    def make(self, number: int = 1) -> None:
        for _ in range(number):
            self._tracer.start_span("made").end()

    async def send(self) -> None:
        await asyncio.to_thread(self.provider.force_flush)

    async def end(self, seconds: float = SECONDS) -> None:
        await asyncio.to_thread(delivery.end, [(self.provider.shutdown, self.exporter)], seconds)


@pytest.fixture
async def spans(receiver) -> AsyncIterator[Spans]:
    spans = Spans()
    yield spans
    await spans.end(0)


@pytest.fixture
def told(caplog) -> Callable[[], list[tuple[str, str, str]]]:
    """What was logged since: severity, text, cause."""
    caplog.set_level(logging.INFO)

    def lines() -> list[tuple[str, str, str]]:
        new = [(each.levelname, each.message, getattr(each, "cause", "")) for each in caplog.records]
        caplog.clear()
        return new

    return lines


async def test_a_receiver_that_refuses_is_told_of_once_and_once_that_it_takes_again(receiver, spans, told):
    receiver.refusal = grpc.StatusCode.PERMISSION_DENIED
    for _ in range(3):
        spans.make()
        await spans.send()
    assert told() == [("WARNING", "traces are not taken by the receiver", "PERMISSION_DENIED")]
    receiver.refusal = None
    for _ in range(2):
        spans.make()
        await spans.send()
    assert told() == [("INFO", "traces are taken by the receiver again", "")]
    assert len(receiver.spans) == 2


async def test_a_receiver_that_is_away_is_told_of_by_each_signal(receiver, told, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")  # no second try
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", NEVER)
    spans, logs = Spans(), LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(delivery.log_batches(exporters.new_log_exporter()))
    await receiver.end()
    for _ in range(2):
        spans.make()
        logs.get_logger("test").emit(body="a line")
        await spans.send()
        await asyncio.to_thread(logs.force_flush)
    assert told() == [
        ("WARNING", "traces are not taken by the receiver", "UNAVAILABLE"),
        ("WARNING", "logs are not taken by the receiver", "UNAVAILABLE"),
    ]
    await receiver.begin()
    while not receiver.spans:
        spans.make()
        await spans.send()
    assert told() == [("INFO", "traces are taken by the receiver again", "")]
    await spans.end()
    await asyncio.to_thread(logs.shutdown)


async def test_what_is_dropped_is_counted_and_whether_the_receiver_takes_it_shown(receiver, spans):
    with measured() as seen:
        delivery.observe()
        assert seen.points(telemetry.TELEMETRY_EXPORTING) == []
        spans.make(3)
        await spans.send()
        assert seen.value(telemetry.TELEMETRY_EXPORTING, {telemetry.SIGNAL: "traces"}) == 1
        assert seen.value(telemetry.TELEMETRY_DROPPED) == 0
        receiver.refusal = grpc.StatusCode.INVALID_ARGUMENT
        spans.make(4)
        await spans.send()
        assert seen.value(telemetry.TELEMETRY_EXPORTING, {telemetry.SIGNAL: "traces"}) == 0
        assert seen.value(telemetry.TELEMETRY_DROPPED, {telemetry.SIGNAL: "traces"}) == 4
        assert seen.value(telemetry.TELEMETRY_DROPPED, {telemetry.SIGNAL: "logs"}) == 0


async def test_a_receiver_that_hangs_makes_nobody_wait_and_the_queue_is_bounded(receiver, told, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    spans = Spans()
    receiver.hold()
    spans.make(8)  # a batch
    await receiver.wait_for(lambda: receiver.asked)
    spans.make(1000)
    with measured() as seen:
        delivery.observe()
        assert seen.value(telemetry.TELEMETRY_DROPPED, {telemetry.SIGNAL: "traces"}) == 1000 - 8
    receiver.release()
    await spans.send()
    assert len(receiver.spans) == 16
    assert told() == []
    await spans.end()


async def test_lines_are_bounded_as_spans_are(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "2")
    exporter, logs = exporters.new_log_exporter(), LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(delivery.log_batches(exporter))
    receiver.hold()
    logs.get_logger("test").emit(body="one")
    logs.get_logger("test").emit(body="two")
    await receiver.wait_for(lambda: receiver.asked)
    for _ in range(5):
        logs.get_logger("test").emit(body="more")
    with measured() as seen:
        delivery.observe()
        assert seen.value(telemetry.TELEMETRY_DROPPED, {telemetry.SIGNAL: "logs"}) == 3
    receiver.release()
    await asyncio.to_thread(delivery.end, [(logs.shutdown, exporter)], SECONDS)
    assert [log.body for log in receiver.logs] == ["one", "two", "more", "more"]


async def test_the_end_sends_what_waits(receiver, spans):
    spans.make(5)
    await spans.end()
    assert len(receiver.spans) == 5


async def test_the_end_does_not_wait_for_a_receiver_that_hangs(receiver, told, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "3600")
    spans = Spans()
    receiver.hold()
    spans.make()
    await asyncio.wait_for(spans.end(0.2), SECONDS)
    assert told() == [("WARNING", "traces are not taken by the receiver", "CANCELLED")]


async def test_signals_end_at_the_same_time():
    met = threading.Barrier(2, timeout=SECONDS / 2)
    await asyncio.to_thread(delivery.end, [(met.wait, None), (met.wait, None)], SECONDS)
    assert not met.broken
    assert met.n_waiting == 0


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
async def test_what_fails_at_the_end_keeps_nothing_else_from_ending():
    def fail() -> None:
        raise RuntimeError

    ended = threading.Event()
    await asyncio.to_thread(delivery.end, [(fail, None), (ended.set, None)], SECONDS)
    assert ended.is_set()


class Exporter:
    """It says something of a failure, as the published ones do, and fails."""

    def __init__(self, *said: object, error: Exception | None = None) -> None:
        self._said, self._error = said, error

    def export(self, _batch: list[Any]) -> SpanExportResult:
        if self._error:
            raise self._error
        logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").error("%s %s", *self._said)
        return SpanExportResult.FAILURE


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (("spans", grpc.StatusCode.RESOURCE_EXHAUSTED), "RESOURCE_EXHAUSTED"),
        (("spans", 429), "TOO_MANY_REQUESTS"),
        (("Service Unavailable", "spans"), "SERVICE_UNAVAILABLE"),
        ((ConnectionResetError("by host 10.0.0.1"), "spans"), "ConnectionResetError"),
        (("a secret", 1.5), "FAILURE"),
    ],
)
def test_the_cause_is_a_name_and_nothing_else_is_told(told, said, cause):
    delivery.watched(Exporter(*said), "traces").export([])
    assert told() == [("WARNING", "traces are not taken by the receiver", cause)]


def test_an_exporter_that_raises_has_failed_too(told):
    with measured() as seen:
        delivery.observe()
        with pytest.raises(ValueError, match="a secret"):
            delivery.watched(Exporter(error=ValueError("a secret")), "traces").export(["a span"])
        assert seen.value(telemetry.TELEMETRY_DROPPED, {telemetry.SIGNAL: "traces"}) == 1
    assert told() == [("WARNING", "traces are not taken by the receiver", "ValueError")]


@contextmanager
def http_receiver(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """It answers with one of them after the other."""
    came: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(statuses[len(came)])
            came.append(self.path)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", came
        server.shutdown()
        thread.join()


async def test_over_http_too(told, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", NEVER)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    with http_receiver(200, 404, 503, 200) as (url, came):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        spans = Spans()
        for _ in range(4):
            spans.make()
            await spans.send()
        await spans.end()
    assert came == ["/v1/traces"] * 4
    assert told() == [
        ("WARNING", "traces are not taken by the receiver", "NOT_FOUND"),
        ("INFO", "traces are taken by the receiver again", ""),
    ]
