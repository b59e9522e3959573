"""A log record becomes one of OpenTelemetry's, with its request's ids and the attributes as they are declared."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from chassis.observability.log_writer import without_error
from chassis.observability.otlp_logs import Emitter
from tests.chassis.observability.test_log_formats import raised, record


def sent(made: logging.LogRecord) -> Any:
    exporter, provider = InMemoryLogRecordExporter(), LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    Emitter(provider).emit(made)
    (one,) = exporter.get_finished_logs() or [None]
    return one


def test_a_record_of_a_request():
    members = {"method": "POST", "route": "/chat", "status": 503, "duration_seconds": 0.5, "reason": "OVERLOADED"}
    one = sent(record(**members, persona="Lua", cache="hit", fallback=True, bind="x"))
    assert one.instrumentation_scope.name == "x"
    assert (one.log_record.body, one.log_record.timestamp) == ("안녕", 1_250_000_000)
    assert (one.log_record.severity_number, one.log_record.severity_text) == (SeverityNumber.WARN, "WARN")
    assert (one.log_record.trace_id, one.log_record.span_id) == (int("a" * 32, 16), int("b" * 16, 16))
    assert one.log_record.trace_flags == 1
    assert dict(one.log_record.attributes) == {
        "request_id": "r",
        "http.request.method": "POST",
        "http.route": "/chat",
        "http.response.status_code": 503,
        "duration_seconds": 0.5,
        "error.type": "OVERLOADED",
        "ion.persona": "Lua",
        "ion.cache.status": "hit",
        "ion.fallback": True,
        "bind": "x",
    }


def test_what_belongs_to_no_request_has_no_ids():
    one = sent(record(traceparent=""))
    assert (one.log_record.trace_id, one.log_record.span_id, dict(one.log_record.attributes)) == (0, 0, {})


def test_an_error_is_told_by_its_stack_and_type():
    attributes = dict(sent(without_error(raised())).log_record.attributes)
    assert attributes["exception.type"] == "KeyError"
    assert attributes["exception.stacktrace"].startswith("Traceback")
    assert "exception.message" not in attributes


@pytest.mark.parametrize("name", ["opentelemetry", "opentelemetry.exporter.otlp"])
def test_what_the_sending_says_of_itself_is_not_sent(name):
    made = record()
    made.name = name
    assert sent(made) is None
