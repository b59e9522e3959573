"""What becomes of what is sent. No request waits for it: sending is the business of the SDK's threads.

What the receiver does not take is thrown away and counted. That it takes nothing is told once, and once that it does
again; what the SDK says of each try is not.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

import grpc

from chassis import telemetry
from chassis.observability import logs, metrics

# What ends a provider, and the exporter that it may wait for, if any.
Ending = tuple[Callable[[], object], Any]

_TALKATIVE: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
)
_SECONDS_TO_BREAK_OFF: Final = 0.2
_PHRASES: Final = {status.phrase: status.name for status in HTTPStatus}
_CODES: Final = {int(status): status.name for status in HTTPStatus}

_log = logging.getLogger(__name__)
_trouble = threading.local()  # why the export in this thread fails


class Delivery:
    """Of one signal."""

    def __init__(self, signal: str) -> None:
        self.signal = signal
        self.is_taken: bool | None = None  # None before the first export
        self.dropped = 0
        self._waiting = 0
        self._lock = threading.Lock()

    def admits(self, most: int) -> bool:
        """Whether one more may wait; else it is dropped."""
        with self._lock:
            is_admitted = self._waiting < most
            self._waiting += is_admitted
            self.dropped += not is_admitted
        return is_admitted

    def begin(self, number: int) -> None:
        """So many do not wait any longer."""
        with self._lock:
            self._waiting -= number

    def end(self, number: int, cause: str) -> None:
        """So many were sent, or dropped where there is a cause."""
        was_taken, self.is_taken = self.is_taken, not cause
        if cause:
            with self._lock:
                self.dropped += number
        if cause and was_taken is not False:
            _log.warning("%s are not taken by the receiver", self.signal, extra={"cause": cause})
        elif not cause and was_taken is False:
            _log.info("%s are taken by the receiver again", self.signal)


_deliveries: Final = {signal: Delivery(signal) for signal in ("traces", "metrics", "logs")}


def observe() -> None:
    """Count what is dropped, and tell whether the receiver takes what is sent."""
    metrics.observe(telemetry.TELEMETRY_DROPPED, _dropped)
    metrics.observe(telemetry.TELEMETRY_EXPORTING, _exporting)


def _dropped() -> list[metrics.Observed]:
    traces, written = _deliveries["traces"].dropped, _deliveries["logs"].dropped + logs.dropped()
    return [(traces, {telemetry.SIGNAL: "traces"}), (written, {telemetry.SIGNAL: "logs"})]


def _exporting() -> list[metrics.Observed]:
    states = [(delivery.signal, delivery.is_taken) for delivery in _deliveries.values()]
    return [(float(is_taken), {telemetry.SIGNAL: signal}) for signal, is_taken in states if is_taken is not None]


def watched(exporter: Any, signal: str) -> Any:
    """The same exporter, with its exports noted."""
    delivery, send = _deliveries[signal], exporter.export

    def export(batch: Any, *more: Any, **named: Any) -> Any:
        number = 0 if signal == "metrics" else len(batch)
        delivery.begin(number)
        _trouble.cause = ""
        try:
            result = send(batch, *more, **named)
        except Exception as error:
            delivery.end(number, type(error).__name__)
            raise
        delivery.end(number, "" if result.name == "SUCCESS" else _trouble.cause or result.name)
        return result

    exporter.export = export
    _quieten()
    return exporter


def _quieten() -> None:
    for name in _TALKATIVE:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.filters[:] = [_hear]  # the SDK's own hides what comes twice, also where it is of another signal


def _hear(record: logging.LogRecord) -> bool:
    """Keep the cause by its name: what else there is may be anything."""
    arguments = record.args if isinstance(record.args, tuple) else ()
    _trouble.cause = next(filter(None, map(_cause, arguments)), getattr(_trouble, "cause", ""))
    return False


def _cause(argument: object) -> str:
    if isinstance(argument, grpc.StatusCode):
        return str(argument.name)
    if isinstance(argument, BaseException):
        return type(argument).__name__
    if isinstance(argument, int):
        return _CODES.get(argument, "")
    return _PHRASES.get(argument, "") if isinstance(argument, str) else ""


def span_batches(exporter: Any) -> Any:
    """A processor of the SDK. What its queue cannot hold is dropped here: the SDK would not say how much it was."""
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    class Batches(BatchSpanProcessor):
        def on_end(self, span: Any) -> None:
            if _deliveries["traces"].admits(queue):
                super().on_end(span)

    queue, batch = _bounds("BSP")
    return Batches(exporter, max_queue_size=queue, max_export_batch_size=batch)


def log_batches(exporter: Any) -> Any:
    """As of spans."""
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    class Batches(BatchLogRecordProcessor):
        def on_emit(self, log_record: Any) -> None:
            if _deliveries["logs"].admits(queue):
                super().on_emit(log_record)

    queue, batch = _bounds("BLRP")
    return Batches(exporter, max_queue_size=queue, max_export_batch_size=batch)


def _bounds(queue: str) -> tuple[int, int]:
    """Most that may wait, and most that are sent together."""
    most = int(os.environ.get(f"OTEL_{queue}_MAX_QUEUE_SIZE") or 2048)
    return most, min(most, int(os.environ.get(f"OTEL_{queue}_MAX_EXPORT_BATCH_SIZE") or 512))


def end(endings: Sequence[Ending], seconds: float) -> None:
    """Send what is still to be sent, all at the same time, and break off what takes longer."""
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=_end, args=(shutdown,), daemon=True) for shutdown, _ in endings]
    for thread in threads:
        thread.start()
    for thread, (_, exporter) in zip(threads, endings, strict=True):
        thread.join(max(0.0, until - time.monotonic()))
        if thread.is_alive() and exporter is not None:
            exporter.shutdown()
    for thread in threads:
        thread.join(_SECONDS_TO_BREAK_OFF)


def _end(shutdown: Callable[[], object]) -> None:
    with suppress(Exception):  # the SDK's summary of what `Delivery` has told
        shutdown()
