"""What a log line looks like. Its fields are declared in chassis.telemetry."""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter

from chassis.observability import tracing

_NO_EXTRAS: Final = frozenset({*RESERVED_ATTRS, "request_id", "traceparent", "error_type"})
_GOOGLE: Final = "logging.googleapis.com/"


def new_formatter(service: str, log_format: Literal["json", "google"] | None) -> logging.Formatter:
    """Of records that have `request_id` and `traceparent`, "" where they belong to no request. None: Google's where the
    process runs on Cloud Run."""
    if log_format == "google" or (log_format is None and os.environ.get("K_SERVICE")):
        return _GoogleLines(service, os.environ.get("GOOGLE_CLOUD_PROJECT", ""))
    return _JsonLines(service)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as `extra`."""
    return {key: value for key, value in record.__dict__.items() if key not in _NO_EXTRAS}


def stack(error: BaseException | None) -> str:
    """Where it was raised and what it came from: types and lines of code, without the errors' texts, which may quote
    what somebody wrote."""
    return "\n".join(_stack_lines(error)) if error else ""


def _stack_lines(error: BaseException) -> Iterator[str]:
    told: set[int] = set()
    link: BaseException | None = error
    while link and id(link) not in told:
        told.add(id(link))
        yield "Traceback (most recent call last):"
        yield "".join(traceback.format_tb(link.__traceback__)).rstrip("\n")
        yield _type_name(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        if link:
            yield "which came from"


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class _JsonLines(JsonFormatter):
    def __init__(self, service: str) -> None:
        super().__init__(json_ensure_ascii=False)
        self._service = service

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        log_data["severity"] = record.levelname
        log_data["logger"] = record.name
        log_data["message"] = record.message
        log_data["service"] = self._service
        self.add_call(log_data, record.__dict__["request_id"], record.__dict__["traceparent"])
        log_data |= self.extras(record)
        log_data |= message_dict

    def add_call(self, fields: dict[str, Any], request_id: str, traceparent: str) -> None:
        if request_id:
            fields["request_id"] = request_id
        if traceparent:
            fields["trace_id"] = traceparent[3:35]
            fields["span_id"] = traceparent[36:52]

    def extras(self, record: logging.LogRecord) -> dict[str, Any]:
        return extras(record)

    def formatException(self, ei: Any) -> str:
        return stack(ei[1])


class _GoogleLines(_JsonLines):
    """With the fields that Google Cloud Logging knows."""

    def __init__(self, service: str, project: str) -> None:
        super().__init__(service)
        self._traces = f"projects/{project}/traces/" if project else ""

    def add_call(self, fields: dict[str, Any], request_id: str, traceparent: str) -> None:
        if request_id:
            fields["request_id"] = request_id
        if traceparent:
            fields[f"{_GOOGLE}trace"] = self._traces + traceparent[3:35]
            fields[f"{_GOOGLE}spanId"] = traceparent[36:52]
            fields[f"{_GOOGLE}trace_sampled"] = tracing.is_sampled(traceparent)

    def extras(self, record: logging.LogRecord) -> dict[str, Any]:
        told = extras(record)
        if "duration_seconds" in told:
            told["httpRequest"] = _http_request(told)
        return told

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        if "exc_info" in log_data:
            log_data["stack_trace"] = log_data.pop("exc_info")
        return log_data


def _http_request(told: dict[str, Any]) -> dict[str, Any]:
    """Takes from what is told of a request what has a place there."""
    places = {"method": "requestMethod", "route": "requestUrl", "status": "status"}
    known = {name: told.pop(field) for field, name in places.items() if field in told}
    return known | {"latency": f"{told.pop('duration_seconds'):.6f}s"}
