"""One call, as its caller or its service sees it: its span, its duration, and that it is under way."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from functools import cache
from typing import Any, Final, Self

import grpc
import grpc.aio

from chassis import telemetry
from chassis.errors import IonError
from chassis.observability import metrics, tracing
from chassis.telemetry import Metric, SpanType

_log = logging.getLogger(__name__)
_SYSTEM: Final = "grpc"
# What is the service's own fault, by the conventions; all else is what it had to answer.
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_HOST_AND_PORT: Final = re.compile(r"(?:[a-z0-9]+:(?://[^/]*/)?)?(\[[^][]+\]|[^][:/,]+):([0-9]{1,5})")

_active: dict[str, int] = {}  # calls that are being served, by method


class MeasuredCall:
    """As a block it is the current call inside, and ends with it; opened otherwise, it is to be ended with
    `end_with`."""

    __slots__ = ("_duration", "_first_message_at", "_messages", "_method", "_started_at", "span")

    def __init__(self, kind: SpanType, duration: Metric, attributes: dict[str, Any]) -> None:
        self._method: str = attributes[telemetry.RPC_METHOD]
        self._duration = duration
        self._first_message_at = 0.0
        self._messages = 0
        self._started_at = time.perf_counter()
        self.span = tracing.span(kind, self._method, attributes)

    def note_message(self) -> None:
        """Of a stream."""
        self._messages += 1
        if self._messages == 1:
            self._first_message_at = time.perf_counter()

    def __enter__(self) -> Self:
        self.span.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._tell(error)
        self.span.__exit__(kind, error, traceback)

    def end_with(self, error: BaseException | None) -> None:
        self._tell(error)
        self.span.end_with(error)

    def _tell(self, error: BaseException | None) -> None:
        if not metrics.is_on() and not self.span.is_recorded:
            return
        seconds = time.perf_counter() - self._started_at
        status = self._status_of(error)
        measured = {telemetry.RPC_SYSTEM: _SYSTEM, telemetry.RPC_METHOD: self._method, telemetry.RPC_STATUS: status}
        if error is not None:
            measured[telemetry.ERROR_TYPE] = tracing.error_type(error)
            self.span.fail(measured[telemetry.ERROR_TYPE], is_error=self._is_fault(status))
        metrics.record(self._duration, seconds, measured, self.span)
        self.span.set(telemetry.RPC_STATUS, status)
        if self._messages:
            self.span.set(telemetry.COUNT_OF_TEXTS, self._messages)
            self.span.set(telemetry.FIRST_MESSAGE, self._first_message_at - self._started_at)

    def _status_of(self, error: BaseException | None) -> str:
        return status_of(error)

    def _is_fault(self, status: str) -> bool:
        raise NotImplementedError


class ServedCall(MeasuredCall):
    """As the service sees it; to be used as a block. What is a defect is logged."""

    __slots__ = ()

    def __init__(self, method: str) -> None:
        super().__init__(telemetry.RPC_SERVER, telemetry.RPC_SERVER_DURATION, _served(method))

    def __enter__(self) -> Self:
        _active[self._method] = _active.get(self._method, 0) + 1
        return super().__enter__()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _active[self._method] -= 1
        if isinstance(error, Exception) and not isinstance(error, (IonError, grpc.aio.AbortError)):
            _log.error("defect in %s", self._method, exc_info=error)
        super().__exit__(kind, error, traceback)

    def _is_fault(self, status: str) -> bool:
        return status in _FAULTS


class MadeCall(MeasuredCall):
    """As the caller sees it. `target` as gRPC knows it; "" for a call in this process."""

    __slots__ = ()

    def __init__(self, method: str, target: str = "") -> None:
        super().__init__(telemetry.RPC_CLIENT, telemetry.RPC_CLIENT_DURATION, _made(method, target))

    def _status_of(self, error: BaseException | None) -> str:
        """The one that was received, whatever the error that it was translated into says."""
        received = error.__cause__ if error is not None else None
        return status_of(received if isinstance(received, grpc.aio.AioRpcError) else error)

    def _is_fault(self, status: str) -> bool:
        """By the conventions all but OK; what its own caller ended is nobody's fault all the same."""
        return status != "CANCELLED"


@cache
def _served(method: str) -> dict[str, Any]:
    return {telemetry.RPC_SYSTEM: _SYSTEM, telemetry.RPC_METHOD: method}


@cache
def _made(method: str, target: str) -> dict[str, Any]:
    return _served(method) | address_of(target)


def address_of(target: str) -> dict[str, Any]:
    """`dns:///llm:50052` -> the host and the port; of a list of addresses, or what else has no port, as it is."""
    if not target:
        return {telemetry.SERVER_ADDRESS: "inproc"}
    known = _HOST_AND_PORT.fullmatch(target)
    if not known:
        return {telemetry.SERVER_ADDRESS: target}
    return {telemetry.SERVER_ADDRESS: known[1].strip("[]"), telemetry.SERVER_PORT: int(known[2])}


def status_of(error: BaseException | None) -> str:
    """The name of the status that a call ends with."""
    if error is None:
        return "OK"
    if isinstance(error, IonError):
        return str(error.code.name)
    if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
        return "CANCELLED"
    if isinstance(error, grpc.aio.AioRpcError):
        return str(error.code().name)
    return "INTERNAL"


def active_calls() -> Iterable[metrics.Observed]:
    """Calls that are being served."""
    return [(number, {telemetry.RPC_METHOD: method}) for method, number in _active.copy().items()]
