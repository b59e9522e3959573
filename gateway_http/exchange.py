"""One HTTP exchange as telemetry sees it: its span, its duration, and its line in the log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Self

from chassis import telemetry
from chassis.observability import logs, metrics, tracing

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_UNKNOWN_METHOD: Final = "_OTHER"
_CANCELLED: Final = "CANCELLED"
_BACKGROUND: Final = ("/livez", "/readyz", "/health", "/metrics", "/assets/", "/docs/")

_active: Counter[tuple[str, str]] = Counter()  # by method and scheme
_streams = 0


class Exchange:
    """As a block it begins and ends what is told. Whoever answers adds what the answer does not show: `failure` is why
    it failed, by its reason; persona, cache status and whether it is an apology are for the log."""

    __slots__ = (
        "_broken_as",
        "_events",
        "_first_event_at",
        "_first_text_at",
        "_has_line",
        "_scope",
        "_span",
        "_started_at",
        "cache",
        "failure",
        "is_complete",
        "is_fallback",
        "persona",
        "status",
    )

    def __init__(self, scope: Any, *, has_line: bool = True) -> None:
        self._scope = scope
        self._has_line = has_line
        self._events = self._broken_as = 0
        self._first_event_at = self._first_text_at = 0.0
        self.status = 0  # none was sent
        self.is_complete = False  # until all that the client waits for was sent
        self.failure = self.persona = self.cache = ""
        self.is_fallback = False

    def note_reply(self, persona: str, cache: str, *, is_fallback: bool) -> None:
        self.persona, self.cache, self.is_fallback = persona, cache, is_fallback

    def note_event(self) -> None:
        """Of a stream."""
        self._events += 1
        if self._events == 1:
            self._first_event_at = time.perf_counter()

    def note_text(self) -> None:
        """Of a stream: a piece of what the persona says."""
        if not self._first_text_at:
            self._first_text_at = time.perf_counter()

    def note_break(self, reason: str, status: int) -> None:
        """Of a stream: it broke off. `status` would have been that of the answer, had it failed at once."""
        self.failure, self._broken_as = reason, status

    def __enter__(self) -> Self:
        _active[self._kind()] += 1
        _current.set(self)
        self._started_at = time.perf_counter()
        method, scheme = self._kind()
        known = {telemetry.HTTP_METHOD: method, telemetry.URL_SCHEME: scheme}
        self._span = tracing.span(telemetry.HTTP_SERVER, _shown(method), known)
        self._span.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _active[self._kind()] -= 1
        seconds = time.perf_counter() - self._started_at
        failure = self._failure_with(error)
        is_fault = self._is_fault(failure, error)
        told = failure if is_fault or failure == _CANCELLED else ""
        route = self._scope.get("path_template", "")
        if metrics.is_on():
            self._measure(seconds, told, route)
        if self._has_line and not is_background(route):
            self._log(seconds, failure, route)
        if self._span.is_recorded:
            self._tell(route)
            if told:
                self._span.fail(told, is_error=is_fault)
        self._span.__exit__(kind, error, traceback)

    def _kind(self) -> tuple[str, str]:
        return self._method(), self._scope.get("scheme", "http")

    def _method(self) -> str:
        method: str = self._scope["method"]
        return method if method in _METHODS else _UNKNOWN_METHOD

    def _failure_with(self, error: BaseException | None) -> str:
        """Why it failed; "" where it did not."""
        if self.failure:
            return self.failure
        if error is not None:
            return tracing.error_type(error)
        if not self.is_complete:
            return _CANCELLED
        return str(self.status) if self.status >= 400 else ""

    def _is_fault(self, failure: str, error: BaseException | None) -> bool:
        """Whether it is ours. A stream may fail after its status was sent."""
        if failure == _CANCELLED:
            return False
        if error is not None and not self.failure:
            return True
        return (self._broken_as or self.status) >= 500

    def _measure(self, seconds: float, failure: str, route: str) -> None:
        method, scheme = self._kind()
        measured: dict[str, str | int] = {telemetry.HTTP_METHOD: method, telemetry.URL_SCHEME: scheme}
        if route:
            measured[telemetry.HTTP_ROUTE] = route
        if self.status:
            measured[telemetry.HTTP_STATUS] = self.status
        if failure:
            measured[telemetry.ERROR_TYPE] = failure
        metrics.record(telemetry.HTTP_DURATION, seconds, measured)
        if self._first_text_at:
            waited = self._first_text_at - self._started_at
            metrics.record(telemetry.HTTP_FIRST_EVENT, waited, {telemetry.HTTP_ROUTE: route})

    def _log(self, seconds: float, failure: str, route: str) -> None:
        logs.request(
            method=self._method(),
            route=route,
            status=self.status,
            duration_seconds=seconds,
            error_type=failure,
            persona=self.persona,
            cache=self.cache,
            fallback=self.is_fallback,
        )

    def _tell(self, route: str) -> None:
        span = self._span
        if route:
            span.rename(f"{_shown(self._method())} {route}")
            span.set(telemetry.HTTP_ROUTE, route)
            span.set(telemetry.URL_PATH, route)
        span.set(telemetry.NETWORK_PROTOCOL_VERSION, self._scope.get("http_version", "1.1"))
        if self.status:
            span.set(telemetry.HTTP_STATUS, self.status)
        if self._events:
            span.set(telemetry.COUNT_OF_TEXTS, self._events)
            span.set(telemetry.FIRST_MESSAGE, self._first_event_at - self._started_at)


def is_background(route: str) -> bool:
    """Asked several times a minute by machines, or many at a time by a page: they would bury the others."""
    return route.startswith(_BACKGROUND)


def _shown(method: str) -> str:
    """In a span's name."""
    return "HTTP" if method == _UNKNOWN_METHOD else method


_current: ContextVar[Exchange] = ContextVar("ion_exchange")
_NO_EXCHANGE: Final = Exchange({}, has_line=False)


def current() -> Exchange:
    """The exchange that is being answered; one that nobody tells of where there is none."""
    return _current.get(_NO_EXCHANGE)


@contextmanager
def open_stream() -> Iterator[None]:
    """It is counted while the block lasts."""
    global _streams
    _streams += 1
    try:
        yield
    finally:
        _streams -= 1


def observe() -> None:
    """Have it measured what is under way, from now on."""
    metrics.observe(telemetry.HTTP_ACTIVE, _count_active)
    metrics.observe(telemetry.HTTP_STREAMS, _count_streams)


def _count_active() -> Iterable[metrics.Observed]:
    return [
        (count, {telemetry.HTTP_METHOD: method, telemetry.URL_SCHEME: scheme})
        for (method, scheme), count in _active.copy().items()
    ]


def _count_streams() -> Iterable[metrics.Observed]:
    return [(_streams, {})]
