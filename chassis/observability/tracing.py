"""What identifies a request on its way through the services, and the spans that tell of it.

Tracing is on where an OTLP endpoint or a traces exporter is configured by the standard variables, and costs nothing
otherwise: the W3C context, the baggage and the request id travel on in either case. Spans are made here rather than by
the published interceptors, which double the chain's CPU (docs/adr/0013).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, TraceState

from chassis.errors import IonError
from chassis.telemetry import ERROR_TYPE, SCOPE, SpanType

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Value = str | int | float | bool | Sequence[str] | Sequence[float]

REQUEST_ID_KEY: Final = "x-request-id"
TRACEPARENT_KEY: Final = "traceparent"
TRACESTATE_KEY: Final = "tracestate"
BAGGAGE_KEY: Final = "baggage"
MAX_TRACESTATE_CHARACTERS: Final = 512
MAX_BAGGAGE_CHARACTERS: Final = 1024
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACEPARENT_CHARACTERS: Final = 55
# One that the SDK understands: of others it warns, in the caller's words.
_STATE_KEY: Final = r"(?:[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
_STATE: Final = _STATE_KEY + r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_TRACESTATE: Final = re.compile(rf"{_STATE}(?:[ \t]*,[ \t]*{_STATE}){{0,31}}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_BAGGAGE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?")
_NO_CONTEXT: Final = Context()
_NOT_ERRORS: Final = (asyncio.CancelledError, GeneratorExit)

_tracer: trace.Tracer | None = None
_follows_parent = True  # whether the sampler leaves alone what the caller has not sampled


@dataclass(slots=True)
class CallContext:
    """What identifies a request on its way through the services; nobody but its span changes it.

    The first two may be "" between the entry of a request that brings none and the span that begins its trace.
    """

    request_id: str = ""
    traceparent: str = ""
    tracestate: str = ""
    baggage: str = ""
    span: Span | None = field(default=None, repr=False, compare=False)  # while it is recorded

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        return self.traceparent[36:52]


class Span:
    """One that is not recorded: it carries the trace on, and what is told to it is forgotten."""

    __slots__ = ("_token", "call")

    def __init__(self, call: CallContext) -> None:
        """`call` is what goes out with the calls below it."""
        self.call = call
        self._token: Token[CallContext] | None = None

    @property
    def is_recorded(self) -> bool:
        return False

    @property
    def context(self) -> Context:
        """For exemplars."""
        return _NO_CONTEXT

    @property
    def sampled_traceparent(self) -> str:
        """For links to it, also after its end; "" where nobody would find it."""
        return ""

    def set(self, key: str, value: Value) -> None:
        """An attribute; see chassis.telemetry for those that there are."""

    def event(self, name: str, attributes: Mapping[str, Value] | None = None) -> None: ...

    def link(self, traceparent: str) -> None:
        """To a span of another trace, or of another part of this one; "" for none."""

    def rename(self, name: str) -> None: ...

    def fail(self, kind: str, *, is_error: bool = True) -> None:
        """It failed for the reason `kind`. `is_error`: and somebody should look why."""

    def end(self) -> None:
        """What is told to it afterwards is forgotten."""

    def enter(self) -> None:
        """The current span for the rest of this task; to be ended with `end_with`."""
        _current.set(self.call)

    def __enter__(self) -> Self:
        if self.call is not _current.get():
            self._token = _current.set(self.call)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self.end_with(error)
        if self._token is not None:
            _current.reset(self._token)
            self._token = None

    def end_with(self, error: BaseException | None) -> None:
        """End it, with the error that it ended with, if any."""
        if error is not None:
            self.fail(error_type(error), is_error=not isinstance(error, _NOT_ERRORS))
        self.end()


class _RecordedSpan(Span):
    __slots__ = ("_failed", "_otel")

    def __init__(self, otel: trace.Span, call: CallContext) -> None:
        super().__init__(call)
        self._otel = otel
        self._failed = False

    @property
    def is_recorded(self) -> bool:
        return self._otel.is_recording()

    @property
    def context(self) -> Context:
        return trace.set_span_in_context(self._otel, _NO_CONTEXT)

    @property
    def sampled_traceparent(self) -> str:
        return self.call.traceparent if is_sampled(self.call.traceparent) else ""

    def set(self, key: str, value: Value) -> None:
        self._otel.set_attribute(key, value)

    def event(self, name: str, attributes: Mapping[str, Value] | None = None) -> None:
        self._otel.add_event(name, attributes)

    def link(self, traceparent: str) -> None:
        known = _well_formed(traceparent)
        if known:
            self._otel.add_link(span_context(known))

    def rename(self, name: str) -> None:
        self._otel.update_name(name)

    def fail(self, kind: str, *, is_error: bool = True) -> None:
        """The first reason stands."""
        if self._failed:
            return
        self._failed = True
        self._otel.set_attribute(ERROR_TYPE, kind)
        if is_error:
            self._otel.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        """Tasks that go on after it are left with its ids alone."""
        ended, self._otel = self._otel, NonRecordingSpan(self._otel.get_span_context())
        self.call.span = None
        ended.end()


_NO_CALL: Final = CallContext()
_NO_SPAN: Final = Span(_NO_CALL)
_current: ContextVar[CallContext] = ContextVar("ion_call", default=_NO_CALL)


def current() -> CallContext:
    return _current.get()


def current_span() -> Span:
    """The innermost that is open around the caller; one that is not recorded where there is none."""
    return _current.get().span or _NO_SPAN


def enter(request_id: str | None, traceparent: str | None, tracestate: str = "", baggage: str = "") -> CallContext:
    """Take on what the caller brings where it is well formed, new ids otherwise, for the rest of this task.

    A request without an id of its own goes by the id of its trace. What is too long is not carried on.
    """
    taken = _well_formed(traceparent)
    if not taken:
        taken, tracestate = _new_traceparent() if _tracer is None else "", ""
    if not request_id or not _REQUEST_ID.fullmatch(request_id):
        request_id = taken[3:35]
    call = CallContext(
        request_id,
        taken,
        tracestate and _carried(tracestate, MAX_TRACESTATE_CHARACTERS, _TRACESTATE),
        baggage and _carried(baggage, MAX_BAGGAGE_CHARACTERS, _BAGGAGE),
    )
    _current.set(call)
    return call


def _well_formed(traceparent: str | None) -> str:
    """As of version 00, whatever a later version says beyond it; "" where it is none."""
    if not traceparent or not _TRACEPARENT.match(traceparent):
        return ""
    known, more = traceparent[:_TRACEPARENT_CHARACTERS], traceparent[_TRACEPARENT_CHARACTERS:]
    if more and (known.startswith("00") or not more.startswith("-")):
        return ""
    return known if known.startswith("00") else f"00{known[2:]}"


def _carried(value: str, most_characters: int, form: re.Pattern[str]) -> str:
    return value if len(value) <= most_characters and form.fullmatch(value) else ""


def outgoing_metadata(call: CallContext | None = None) -> tuple[tuple[str, str], ...]:
    """The gRPC metadata that carry the call on, by default the current one. An id that is the trace's goes with it
    unsaid: each entry costs about 25 µs a hop."""
    call = call or _current.get()
    carried: tuple[tuple[str, str], ...] = ((TRACEPARENT_KEY, call.traceparent),) if call.traceparent else ()
    if call.request_id != call.trace_id:
        carried += ((REQUEST_ID_KEY, call.request_id),)
    if call.tracestate:
        carried += ((TRACESTATE_KEY, call.tracestate),)
    if call.baggage:
        carried += ((BAGGAGE_KEY, call.baggage),)
    return carried


def _new_traceparent() -> str:
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-00"


def span(kind: SpanType, name: str, attributes: Mapping[str, Value] | None = None) -> Span:
    """A span below the current one, or the first of a trace. As `with span(...) as made:` it is the current one inside,
    and ends with the block, in which a generator must not yield: its reader would be in the span too. What is opened
    otherwise is to be ended with `end_with`.

    Nothing is recorded, and next to nothing spent, where tracing is off or the caller's trace is not sampled.
    """
    call = _current.get()
    if _tracer is None or (_follows_parent and call.traceparent and not is_sampled(call.traceparent)):
        return Span(call)
    started = _tracer.start_span(name, context=_parent(call), kind=kind.kind, attributes=attributes)
    made = started.get_span_context()
    traceparent = f"00-{made.trace_id:032x}-{made.span_id:016x}-{made.trace_flags:02x}"
    request_id = call.request_id or traceparent[3:35]
    below = CallContext(request_id, traceparent, made.trace_state.to_header(), call.baggage)
    if not started.is_recording():
        return Span(below)
    recorded = _RecordedSpan(started, below)
    below.span = recorded
    return recorded


def is_sampled(traceparent: str) -> bool:
    return bool(int(traceparent[-2:], 16) & TraceFlags.SAMPLED)  # one flag of several: the SDK sets others too


def _parent(call: CallContext) -> Context:
    if call.span is not None:
        return call.span.context
    if not call.traceparent:
        return _NO_CONTEXT
    return trace.set_span_in_context(NonRecordingSpan(span_context(call.traceparent, call.tracestate)), _NO_CONTEXT)


def span_context(traceparent: str, tracestate: str = "") -> SpanContext:
    """Of one that is well formed."""
    return SpanContext(
        int(traceparent[3:35], 16),
        int(traceparent[36:52], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(traceparent[53:], 16)),
        trace_state=TraceState.from_header([tracestate]) if tracestate else None,
    )


def error_type(error: BaseException) -> str:
    """What of an error may be told: the reason of the contract, or the name of its type."""
    if isinstance(error, IonError):
        return error.reason_name
    return "CANCELLED" if isinstance(error, _NOT_ERRORS) else type(error).__name__


def start(provider: TracerProvider) -> None:
    """Make spans with this tracer provider from now on."""
    global _tracer, _follows_parent
    from opentelemetry.sdk.trace.sampling import ParentBased

    _tracer = provider.get_tracer(SCOPE)
    _follows_parent = isinstance(provider.sampler, ParentBased)


def stop() -> None:
    global _tracer
    _tracer = None
