"""Tracing and metrics within a test; what they tell stays in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis.observability import metrics, tracing
from chassis.telemetry import ATTRIBUTES, Instrument, Metric


@contextmanager
def recorded_spans(sampler: str = "always_on", ratio: str = "") -> Iterator[InMemorySpanExporter]:
    """Tracing is on; the spans that have ended. `sampler` and `ratio` as OTEL_TRACES_SAMPLER and its argument: by
    default what the caller has not sampled is recorded too. In the end they have declared attributes alone."""
    exporter = InMemorySpanExporter()
    with patch.dict(os.environ, OTEL_TRACES_SAMPLER=sampler, OTEL_TRACES_SAMPLER_ARG=ratio):
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracing.start(provider)
    try:
        yield exporter
        told = {key for span in exporter.get_finished_spans() for key in span.attributes or ()}
        assert told <= set(ATTRIBUTES)
    finally:
        tracing.stop()
        provider.shutdown()


class Measured:
    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    def points(self, metric: Metric) -> list[Any]:
        """The SDK's data points of the metric, each with `attributes`; of a histogram with `count`, `sum`,
        `bucket_counts` and `exemplars` (those since the last look at any metric), else with `value`."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for found in scope.metrics
            if found.name == metric.name
            for point in found.data.data_points
        ]

    def value(self, metric: Metric, attributes: Mapping[str, Any] | None = None) -> float:
        """The sum of the points that have all of `attributes`, and perhaps more; of a histogram how many there are.
        0 where there are none."""
        wanted = (attributes or {}).items()
        field = "count" if metric.instrument is Instrument.HISTOGRAM else "value"
        return sum(getattr(point, field) for point in self.points(metric) if wanted <= point.attributes.items())


@contextmanager
def measured() -> Iterator[Measured]:
    """Metrics are on. What is observed is registered inside the block."""
    reader = InMemoryMetricReader()
    provider = metrics.start([reader], Resource.get_empty())
    try:
        yield Measured(reader)
    finally:
        metrics.stop()
        provider.shutdown()
