"""What is recorded is told to each reader as it wants it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import Histogram
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from chassis import telemetry
from chassis.observability import metrics, tracing
from tests.observed import Measured, measured, recorded_spans

LAG = telemetry.LOOP_LAG
LUA = {telemetry.PERSONA: "Lua"}
NANA = {telemetry.PERSONA: "Nana"}


@pytest.fixture
def readers() -> Iterator[tuple[InMemoryMetricReader, InMemoryMetricReader]]:
    """Metrics are on: for one who wants totals, and one who wants differences."""
    total = InMemoryMetricReader()
    delta = InMemoryMetricReader(preferred_temporality={Histogram: AggregationTemporality.DELTA})
    provider = metrics.start([total, delta], Resource.create({"service.name": "here"}))
    yield total, delta
    metrics.stop()
    provider.shutdown()


def found(reader: InMemoryMetricReader) -> dict[str, tuple[int, float]]:
    """How many there are and their sum, by persona."""
    points = Measured(reader).points(LAG)
    return {point.attributes[telemetry.PERSONA]: (point.count, point.sum) for point in points}


def test_one_reader_has_totals_and_the_other_what_is_new(readers):
    total, delta = readers
    metrics.record(LAG, 1.0, LUA)
    metrics.record(LAG, 2.0, NANA)
    assert found(total) == found(delta) == {"Lua": (1, 1.0), "Nana": (1, 2.0)}
    metrics.record(LAG, 4.0, LUA)
    assert found(total) == {"Lua": (2, 5.0), "Nana": (1, 2.0)}
    assert found(delta) == {"Lua": (1, 4.0)}
    assert found(delta) == {}
    assert found(total) == {"Lua": (2, 5.0), "Nana": (1, 2.0)}


def test_times_are_those_of_the_start_or_of_the_last_look(readers):
    total, delta = readers
    for _ in range(2):
        metrics.record(LAG, 1.0)
        (whole,), (part,) = Measured(total).points(LAG), Measured(delta).points(LAG)
    metrics.record(LAG, 1.0)
    (later,), (next_part,) = Measured(total).points(LAG), Measured(delta).points(LAG)
    assert later.start_time_unix_nano == whole.start_time_unix_nano < whole.time_unix_nano < later.time_unix_nano
    assert next_part.start_time_unix_nano == part.time_unix_nano


def test_they_travel_as_the_sdks_own(readers):
    """With what is observed, below the process's resource."""
    total, _ = readers
    metrics.record(LAG, 0.0006, LUA)
    metrics.observe(telemetry.CACHE_ENTRIES, lambda: [(3, {})])
    encoded = encode_metrics(total.get_metrics_data())
    (resource,) = encoded.resource_metrics
    assert resource.resource.attributes[0].value.string_value
    by_name = {metric.name: metric for scope in resource.scope_metrics for metric in scope.metrics}
    (point,) = by_name[LAG.name].histogram.data_points
    assert (point.count, list(point.explicit_bounds), list(point.bucket_counts)[:3]) == (
        1,
        list(LAG.buckets),
        [0, 1, 0],
    )
    assert by_name[telemetry.CACHE_ENTRIES.name].gauge.data_points[0].as_int == 3


@given(st.lists(st.floats(0, 10), min_size=1))
def test_each_value_is_in_the_first_bucket_whose_bound_it_does_not_pass(values):
    with measured() as seen:
        for value in [*values, *LAG.buckets]:
            metrics.record(LAG, value)
        (point,) = seen.points(LAG)
    below = [sum(value <= bound for value in [*values, *LAG.buckets]) for bound in LAG.buckets]
    assert [sum(point.bucket_counts[: place + 1]) for place in range(len(LAG.buckets))] == below
    assert point.count == len(values) + len(LAG.buckets)


def exemplars(reader: InMemoryMetricReader) -> list[tuple[float, int]]:
    return [(each.value, each.span_id) for point in Measured(reader).points(LAG) for each in point.exemplars]


def test_each_bucket_has_its_last_exemplar_which_each_reader_is_told_once(readers):
    total, delta = readers
    with recorded_spans():
        spans: list[Any] = [tracing.span(telemetry.RPC_SERVER, "x") for _ in range(3)]
        for value, span in zip((0.0001, 0.0002, 2.0), spans, strict=True):
            metrics.record(LAG, value, span=span)
        ids = [int(span.call.span_id, 16) for span in spans]
        for reader in (total, delta):
            assert exemplars(reader) == [(0.0002, ids[1]), (2.0, ids[2])]
            assert exemplars(reader) == []


def test_exemplars_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("OTEL_METRICS_EXEMPLAR_FILTER", "always_off")
    with measured() as seen, recorded_spans(), tracing.span(telemetry.RPC_SERVER, "x"):
        metrics.record(LAG, 1.0)
        assert [point.exemplars for point in seen.points(LAG)] == [[]]


def test_sets_of_attributes_are_bounded(monkeypatch):
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    with measured() as seen:
        for number in range(10):
            metrics.record(LAG, 1.0, {telemetry.PERSONA: str(number)})
        metrics.record(LAG, 1.0, {telemetry.PERSONA: "0"})
        assert len(seen.points(LAG)) == 4
        assert seen.value(LAG, {"otel.metric.overflow": True}) == 7
        assert seen.value(LAG, {telemetry.PERSONA: "0"}) == 2
