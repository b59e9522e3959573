"""One call, as its caller or its service sees it: its span, its duration, and that it is under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Final, Self

import grpc
import grpc.aio

from chassis import telemetry
from chassis.errors import IonError
from chassis.observability import metrics, tracing
from chassis.telemetry import Metric, SpanType

_SYSTEM: Final = "grpc"
# What is the service's own fault, by the conventions; all else is what it had to answer.
_FAULTS: Final = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})

_active: dict[str, int] = {}  # calls that are being served, by method


class MeasuredCall:
    """As a block it is the current call inside, and ends with it; opened otherwise, it is to be ended with
    `end_with`."""

    __slots__ = ("_attributes", "_duration", "_first_message_at", "_messages", "_started_at", "span")

    def __init__(self, kind: SpanType, duration: Metric, attributes: dict[str, Any]) -> None:
        self.span = tracing.span(kind, attributes[telemetry.RPC_METHOD], attributes)
        self._duration = duration
        self._attributes = attributes
        self._started_at = time.perf_counter()
        self._first_message_at = 0.0
        self._messages = 0

    def note_message(self) -> None:
        """Of a stream."""
        self._messages += 1
        if self._messages == 1:
            self._first_message_at = time.perf_counter()

    def __enter__(self) -> Self:
        self.span.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._measure(error)
        self.span.__exit__(kind, error, traceback)

    def end_with(self, error: BaseException | None) -> None:
        self._measure(error)
        self.span.end_with(error)

    def _measure(self, error: BaseException | None) -> None:
        status = status_of(error)
        measured = {
            telemetry.RPC_SYSTEM: _SYSTEM,
            telemetry.RPC_METHOD: self._attributes[telemetry.RPC_METHOD],
            telemetry.RPC_STATUS: status,
        }
        if error is not None:
            measured[telemetry.ERROR_TYPE] = tracing.error_type(error)
            is_error = status in _FAULTS if self._duration is telemetry.RPC_SERVER_DURATION else status != "CANCELLED"
            self.span.fail(measured[telemetry.ERROR_TYPE], is_error=is_error)
        metrics.record(self._duration, time.perf_counter() - self._started_at, measured, self.span)
        self.span.set(telemetry.RPC_STATUS, status)
        if self._messages:
            self.span.set(telemetry.COUNT_OF_TEXTS, self._messages)
            self.span.set(telemetry.FIRST_MESSAGE, self._first_message_at - self._started_at)


class ServedCall(MeasuredCall):
    """As the service sees it."""

    __slots__ = ()

    def __init__(self, method: str) -> None:
        attributes = {telemetry.RPC_SYSTEM: _SYSTEM, telemetry.RPC_METHOD: method}
        super().__init__(telemetry.RPC_SERVER, telemetry.RPC_SERVER_DURATION, attributes)
        _active[method] = _active.get(method, 0) + 1

    def _measure(self, error: BaseException | None) -> None:
        _active[self._attributes[telemetry.RPC_METHOD]] -= 1
        super()._measure(error)


class MadeCall(MeasuredCall):
    """As the caller sees it. `target` as gRPC knows it; "" for a call in this process."""

    __slots__ = ()

    def __init__(self, method: str, target: str = "") -> None:
        attributes = {telemetry.RPC_SYSTEM: _SYSTEM, telemetry.RPC_METHOD: method} | address_of(target)
        super().__init__(telemetry.RPC_CLIENT, telemetry.RPC_CLIENT_DURATION, attributes)


def address_of(target: str) -> dict[str, Any]:
    """`dns:///llm:50052` -> the host and the port; nothing of the port where there is none."""
    if not target:
        return {telemetry.SERVER_ADDRESS: "inproc"}
    host, _, port = target.rpartition("/")[2].rpartition(":")
    if not port.isdigit():
        return {telemetry.SERVER_ADDRESS: target}
    return {telemetry.SERVER_ADDRESS: host.strip("[]"), telemetry.SERVER_PORT: int(port)}


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
