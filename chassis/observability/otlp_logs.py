"""Log records as OpenTelemetry knows them. Imported only where they are sent."""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.semconv.attributes.exception_attributes import EXCEPTION_STACKTRACE, EXCEPTION_TYPE
from opentelemetry.trace import NonRecordingSpan

from chassis import telemetry
from chassis.observability import tracing
from chassis.observability.log_formats import extras

_ATTRIBUTES: Final = {
    "method": telemetry.HTTP_METHOD,
    "route": telemetry.HTTP_ROUTE,
    "status": telemetry.HTTP_STATUS,
    "reason": telemetry.ERROR_TYPE,
    "persona": telemetry.PERSONA,
    "cache": telemetry.CACHE_STATUS,
    "fallback": telemetry.FALLBACK,
}
_SEVERITIES: Final = {
    logging.DEBUG: (SeverityNumber.DEBUG, "DEBUG"),
    logging.INFO: (SeverityNumber.INFO, "INFO"),
    logging.WARNING: (SeverityNumber.WARN, "WARN"),
    logging.ERROR: (SeverityNumber.ERROR, "ERROR"),
    logging.CRITICAL: (SeverityNumber.FATAL, "FATAL"),
}


class Emitter:
    def __init__(self, provider: Any) -> None:
        """Through a logger provider of the SDK."""
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """What OpenTelemetry's own code says is not sent: it would be about the sending, and call for more."""
        if not record.name.startswith("opentelemetry"):
            self._provider.get_logger(record.name).emit(_translated(record))


def _translated(record: logging.LogRecord) -> LogRecord:
    number, text = _SEVERITIES.get(record.levelno, (SeverityNumber.UNSPECIFIED, record.levelname))
    return LogRecord(
        timestamp=int(record.created * 1e9),
        context=_context(record.__dict__["traceparent"]),
        severity_number=number,
        severity_text=text,
        body=record.getMessage(),
        attributes=_attributes(record),
    )


def _context(traceparent: str) -> Context | None:
    if not traceparent:
        return None
    return trace.set_span_in_context(NonRecordingSpan(tracing.span_context(traceparent)), Context())


def _attributes(record: logging.LogRecord) -> dict[str, Any]:
    told = {_ATTRIBUTES.get(field, field): value for field, value in extras(record).items()}
    if request_id := record.__dict__["request_id"]:
        told["request_id"] = request_id
    if record.exc_text:
        told[EXCEPTION_TYPE] = record.__dict__["error_type"]
        told[EXCEPTION_STACKTRACE] = record.exc_text
    return told
