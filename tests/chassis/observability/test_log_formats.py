"""A line is JSON, in two kinds, and tells of an error where it was, not what it says."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from chassis.observability.log_formats import new_formatter
from tests.chassis.observability.written import lines

TRACE, SPAN = "a" * 32, "b" * 16
REQUEST = {"method": "POST", "route": "/chat", "status": 200, "duration_seconds": 0.0123, "persona": "Lua"}


def record(message: str = "안녕", *, traceparent: str = f"00-{TRACE}-{SPAN}-01", **extra: Any) -> logging.LogRecord:
    made = logging.getLogger("x").makeRecord("x", logging.WARNING, "file", 1, message, (), None, extra=extra)
    made.created, made.request_id, made.traceparent = 1.25, "r" if traceparent else "", traceparent
    return made


def line(made: logging.LogRecord, log_format: Any = "json") -> dict[str, Any]:
    return dict(json.loads(new_formatter("test", log_format).format(made)))


def test_json():
    assert line(record(answer=42)) == {
        "time": "1970-01-01T00:00:01.250000+00:00",
        "severity": "WARNING",
        "logger": "x",
        "message": "안녕",
        "service": "test",
        "request_id": "r",
        "trace_id": TRACE,
        "span_id": SPAN,
        "answer": 42,
    }


@pytest.mark.parametrize("log_format", ["json", "google"])
def test_what_belongs_to_no_request_has_no_ids(log_format):
    assert line(record(traceparent=""), log_format).keys() == {"time", "severity", "logger", "message", "service"}


def test_google(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "things")
    assert line(record(**REQUEST), "google") == {
        "time": "1970-01-01T00:00:01.250000+00:00",
        "severity": "WARNING",
        "logger": "x",
        "message": "안녕",
        "service": "test",
        "request_id": "r",
        "logging.googleapis.com/trace": f"projects/things/traces/{TRACE}",
        "logging.googleapis.com/spanId": SPAN,
        "logging.googleapis.com/trace_sampled": True,
        "httpRequest": {"requestMethod": "POST", "requestUrl": "/chat", "status": 200, "latency": "0.012300s"},
        "persona": "Lua",
    }


def test_google_without_a_project_or_a_sample(monkeypatch):
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)
    written = line(record(traceparent=f"00-{TRACE}-{SPAN}-02"), "google")
    assert written["logging.googleapis.com/trace"] == TRACE
    assert written["logging.googleapis.com/trace_sampled"] is False


@pytest.mark.parametrize(
    ("log_format", "service", "is_google"),
    [(None, "", False), (None, "ion", True), ("json", "ion", False), ("google", "", True)],
)
def test_on_cloud_run_it_is_google_where_nothing_else_is_said(log_format, service, is_google, monkeypatch):
    monkeypatch.setenv("K_SERVICE", service)
    assert ("logging.googleapis.com/trace" in line(record(), log_format)) == is_google


def raised() -> logging.LogRecord:
    made = record()
    try:
        try:
            int("what somebody wrote")
        except ValueError as error:
            raise KeyError("what somebody wrote") from error
    except KeyError:
        made.exc_info = sys.exc_info()
    return made


@pytest.mark.parametrize(("log_format", "field"), [("json", "exc_info"), ("google", "stack_trace")])
def test_an_error_is_told_by_its_stack_and_types(log_format, field):
    written = line(raised(), log_format)
    stack = written[field].splitlines()
    assert [text for text in stack if not text.startswith(" ")] == [
        "Traceback (most recent call last):",
        "KeyError",
        "which came from",
        "Traceback (most recent call last):",
        "ValueError",
    ]
    assert any(f'"{__file__}", line ' in text for text in stack)


def test_an_error_that_came_of_itself_is_told_once():
    made, first, second = record(), ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    made.exc_info = (ValueError, first, None)
    assert line(made)["exc_info"].count("KeyError") == 1


def test_letters_stay_readable():
    assert "안녕" in new_formatter("test", "json").format(record())


def test_half_a_character_is_still_json():
    with lines() as written:
        *_, ours = logging.getLogger().handlers
        ours.handle(logging.LogRecord("x", logging.WARNING, "", 0, "half: \ud83d", None, None))
    assert written.messages == ["half: \ud83d"]
