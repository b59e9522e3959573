"""An OTLP receiver: a real gRPC server for the three services, which keeps what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
import grpc.aio
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

Attributes = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """Ids are hexadecimal; `parent_id` is "" for the first of a trace. Times are seconds since 1970."""

    service: str
    name: str
    kind: str
    status: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Attributes
    events: list[tuple[str, Attributes]]
    links: list[str]  # ids of spans
    scope: str
    started_at: float
    ended_at: float


@dataclass(frozen=True)
class Point:
    """The newest value of one series. `value` of a histogram is the sum, and `count` how many it has."""

    service: str
    name: str
    attributes: Attributes
    value: float
    count: int
    exemplars: list[str]  # ids of traces


@dataclass(frozen=True)
class Log:
    service: str
    severity: str
    body: str
    attributes: Attributes
    trace_id: str
    span_id: str


@dataclass
class Receiver:
    """`async with Receiver() as receiver:`; what it got is in the lists, and once more as it came in `exports`."""

    port: int = 0
    spans: list[Span] = field(default_factory=list)
    metrics: dict[Any, Point] = field(default_factory=dict)
    logs: list[Log] = field(default_factory=list)
    resources: dict[str, Attributes] = field(default_factory=dict)  # by service
    exports: list[Any] = field(default_factory=list)
    asked: int = 0  # exports that have begun
    refusal: grpc.StatusCode | None = None
    _grew: asyncio.Condition = field(default_factory=asyncio.Condition)
    _released: asyncio.Event = field(default_factory=asyncio.Event)
    _server: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._released.set()
        await self.begin()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.release()
        await self.end()

    async def begin(self) -> None:
        """Listen, on the port of before where there was one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._server)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(self), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def end(self) -> None:
        """Nobody listens any more."""
        await self._server.stop(0)

    def hold(self) -> None:
        """Exports are taken in and not answered until `release`."""
        self._released.clear()

    def release(self) -> None:
        self._released.set()

    async def wait_for(self, holds: Callable[[], object], *, seconds: float = 20.0) -> None:
        """Until it holds, looked at whenever something came."""
        async with asyncio.timeout(seconds), self._grew:
            await self._grew.wait_for(holds)

    def points(self, name: str, *, service: str = "", **attributes: Any) -> list[Point]:
        """Series of a metric that have these attributes, their dots written as `__`."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return [
            point
            for point in self.metrics.values()
            if point.name == name and service in ("", point.service) and wanted.items() <= point.attributes.items()
        ]

    def value(self, name: str, *, service: str = "", **attributes: Any) -> float:
        """Of all those series together: the sum of values, of histograms the number of what they have."""
        points = self.points(name, service=service, **attributes)
        return sum(point.count or point.value for point in points)

    async def take(self, request: Any, context: Any, keep: Callable[[Any], None]) -> None:
        async with self._noticing():
            self.asked += 1
        await self._released.wait()
        if self.refusal is not None:
            await context.abort(self.refusal, "not now")
        async with self._noticing():
            self.exports.append(request)
            keep(request)

    @asynccontextmanager
    async def _noticing(self) -> AsyncIterator[None]:
        async with self._grew:
            yield
            self._grew.notify_all()

    def service_of(self, resource: Any) -> str:
        attributes = _attributes(resource.attributes)
        service = str(attributes["service.name"])
        self.resources[service] = attributes
        return service


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> Any:
        await self._receiver.take(request, context, self._keep)
        return trace_service_pb2.ExportTraceServiceResponse()

    def _keep(self, request: Any) -> None:
        for resource in request.resource_spans:
            service = self._receiver.service_of(resource.resource)
            for scope in resource.scope_spans:
                self._receiver.spans += [_span(service, scope.scope.name, span) for span in scope.spans]


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> Any:
        await self._receiver.take(request, context, self._keep)
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _keep(self, request: Any) -> None:
        for resource in request.resource_metrics:
            service = self._receiver.service_of(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in _points(service, metric):
                        series = (service, point.name, tuple(sorted(point.attributes.items())))
                        self._receiver.metrics[series] = point


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def Export(self, request: Any, context: Any) -> Any:
        await self._receiver.take(request, context, self._keep)
        return logs_service_pb2.ExportLogsServiceResponse()

    def _keep(self, request: Any) -> None:
        for resource in request.resource_logs:
            service = self._receiver.service_of(resource.resource)
            for scope in resource.scope_logs:
                self._receiver.logs += [_log(service, record) for record in scope.log_records]


def _span(service: str, scope: str, span: Any) -> Span:
    return Span(
        service,
        span.name,
        SpanMessage.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        {0: "unset", 1: "ok", 2: "error"}[span.status.code],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        _attributes(span.attributes),
        [(event.name, _attributes(event.attributes)) for event in span.events],
        [link.span_id.hex() for link in span.links],
        scope,
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
    )


def _points(service: str, metric: Any) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points:
        is_histogram = kind == "histogram"
        value = point.sum if is_histogram else getattr(point, point.WhichOneof("value"))
        exemplars = [exemplar.trace_id.hex() for exemplar in point.exemplars]
        count = point.count if is_histogram else 0
        yield Point(service, metric.name, _attributes(point.attributes), value, count, exemplars)


def _log(service: str, record: Any) -> Log:
    return Log(
        service,
        record.severity_text,
        record.body.string_value,
        _attributes(record.attributes),
        record.trace_id.hex(),
        record.span_id.hex(),
    )


def _attributes(pairs: Any) -> Attributes:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(each) for each in value.array_value.values)
    return getattr(value, kind) if kind else None


def environment(receiver: Receiver, **more: str) -> Mapping[str, str]:
    """Settings of a process that tells this receiver all, and does not make it wait."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_BLRP_SCHEDULE_DELAY": "100",
        "OTEL_METRIC_EXPORT_INTERVAL": "500",
    } | more
