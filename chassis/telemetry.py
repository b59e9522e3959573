"""Logs and traces: what a call carries along, and how a process writes it down.

Tracing is on where an OTLP endpoint or a traces exporter is configured by the standard variables, and costs nothing
otherwise: the W3C context and the request id travel on in either case.
"""

from __future__ import annotations

import logging
import os
import random
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pythonjsonlogger.json import JsonFormatter

REQUEST_ID_KEY: Final = "x-request-id"
TRACEPARENT_KEY: Final = "traceparent"
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_SAMPLED_FLAG: Final = 0x01
_NO_SPAN: Final = nullcontext()

_tracer: trace.Tracer | None = None
_follows_parent = True  # whether the sampler leaves alone what the caller has not sampled


@dataclass(frozen=True, slots=True)
class CallContext:
    """What identifies a request on its way through the services.

    Both may be "" between the entry of a request that brings none and the span that begins its trace.
    """

    request_id: str = ""
    traceparent: str = ""

    @property
    def trace_id(self) -> str:
        return self.traceparent[3:35]


_current: ContextVar[CallContext] = ContextVar("ion_call", default=CallContext())  # noqa: B039 - it is frozen


def current() -> CallContext:
    return _current.get()


def enter(request_id: str | None, traceparent: str | None) -> CallContext:
    """Take on the caller's ids where they are well formed, new ones otherwise, for the rest of this task.

    A request without an id of its own goes by the id of its trace.
    """
    if not traceparent or not _TRACEPARENT.fullmatch(traceparent):
        traceparent = _new_traceparent() if _tracer is None else ""
    if not request_id or not _REQUEST_ID.fullmatch(request_id):
        request_id = traceparent[3:35]
    call = CallContext(request_id, traceparent)
    _current.set(call)
    return call


def outgoing_metadata() -> tuple[tuple[str, str], ...]:
    """The gRPC metadata that carries the current call on. An id that is the trace's goes with it unsaid: each entry
    costs about 25 µs a hop."""
    call = _current.get()
    trace_context = ((TRACEPARENT_KEY, call.traceparent),) if call.traceparent else ()
    if call.request_id == call.trace_id:
        return trace_context
    return ((REQUEST_ID_KEY, call.request_id), *trace_context)


def _new_traceparent() -> str:
    return f"00-{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}-00"


def setup(service_name: str, log_level: str) -> None:
    """Configure this process's logs, and its tracer where one is asked for."""
    _configure_logging(service_name, log_level)
    if _tracing_wanted(os.environ):
        _configure_tracing(service_name)


def span(
    name: str, kind: SpanKind, attributes: Mapping[str, str | int | float | bool] | None = None
) -> AbstractContextManager[None]:
    """A span below the current call's, or the first of a trace; what is called inside sees it as its parent.

    Free where tracing is off, and where the caller's trace is not sampled.
    """
    call = _current.get()
    if _tracer is None or (_follows_parent and call.traceparent and not _is_sampled(call.traceparent)):
        return _NO_SPAN
    return _span(_tracer, call, name, kind, attributes)


def _is_sampled(traceparent: str) -> bool:
    return bool(int(traceparent[-2:], 16) & _SAMPLED_FLAG)  # one flag of several: the SDK sets others too


@contextmanager
def _span(
    tracer: trace.Tracer,
    call: CallContext,
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, str | int | float | bool] | None,
) -> Iterator[None]:
    parent = _PROPAGATOR.extract({TRACEPARENT_KEY: call.traceparent}) if call.traceparent else Context()
    with tracer.start_as_current_span(name, context=parent, kind=kind, attributes=attributes) as started:
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, context=trace.set_span_in_context(started))
        traceparent = carrier.get(TRACEPARENT_KEY, call.traceparent)
        token = _current.set(CallContext(call.request_id or traceparent[3:35], traceparent))
        try:
            yield
        finally:
            _current.reset(token)


def _tracing_wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    wanted = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER")
    return any(environ.get(name) for name in wanted)


def _configure_tracing(service_name: str) -> None:
    global _tracer, _follows_parent
    # Imported where tracing is on: the exporter costs 100 ms of the start.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter

    console = os.environ.get("OTEL_TRACES_EXPORTER") == "console"
    exporter: SpanExporter = ConsoleSpanExporter(out=sys.stderr) if console else OTLPSpanExporter()
    name = os.environ.get("OTEL_SERVICE_NAME", service_name)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    _tracer = trace.get_tracer("ion")
    _follows_parent = os.environ.get("OTEL_TRACES_SAMPLER", "parentbased_always_on").startswith("parentbased_")


def _configure_logging(service_name: str, log_level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "severity", "name": "logger"},
            static_fields={"service": service_name},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            json_ensure_ascii=False,
        )
    )
    handler.addFilter(_add_call)
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)


def _add_call(record: logging.LogRecord) -> bool:
    call = _current.get()
    if call.request_id:
        record.request_id = call.request_id
        record.trace_id = call.trace_id
    return True
