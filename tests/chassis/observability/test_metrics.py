"""Measurements reach whoever reads them, and cost nothing while nobody does."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

from chassis import telemetry
from chassis.observability import metrics, tracing
from tests.observed import Measured, measured, recorded_spans

LUA = {telemetry.PERSONA: "Lua"}
NANA = {telemetry.PERSONA: "Nana"}


def test_nothing_is_kept_while_metrics_are_off():
    metrics.record(telemetry.LOOP_LAG, 1.0)
    metrics.count(telemetry.CACHE_STORED)
    metrics.observe(telemetry.CACHE_ENTRIES, lambda: [(1, {})])
    assert not metrics.is_on()
    with measured() as seen:
        assert metrics.is_on()
        metrics.observe(telemetry.CACHE_ENTRIES, lambda: [(2, {})])
        assert seen.value(telemetry.CACHE_ENTRIES) == 2
        assert not seen.points(telemetry.LOOP_LAG)
        assert not seen.points(telemetry.CACHE_STORED)


def test_every_reader_is_told_everything():
    readers = InMemoryMetricReader(), InMemoryMetricReader()
    provider = metrics.start(readers, Resource.get_empty())
    try:
        metrics.count(telemetry.ROUTING_DECISIONS, LUA)
        metrics.count(telemetry.ROUTING_DECISIONS, LUA, 2)
        metrics.count(telemetry.ROUTING_DECISIONS, NANA)
        metrics.record(telemetry.LOOP_LAG, 0.003)
        metrics.observe(telemetry.MODEL_REPLIES, lambda: [(5, LUA)])
        metrics.observe(telemetry.MODEL_REPLIES, lambda: [(7, NANA)])
        for seen in map(Measured, readers):
            assert seen.value(telemetry.ROUTING_DECISIONS, LUA) == 3
            assert seen.value(telemetry.ROUTING_DECISIONS) == 4
            assert seen.value(telemetry.MODEL_REPLIES, LUA) == 5
            assert seen.value(telemetry.MODEL_REPLIES) == 12
            (lag,) = seen.points(telemetry.LOOP_LAG)
            assert (lag.count, lag.sum, lag.explicit_bounds) == (1, 0.003, telemetry.LOOP_LAG.buckets)
    finally:
        metrics.stop()
        provider.shutdown()


def test_a_recorded_span_is_the_exemplar_of_what_is_measured_in_it():
    with measured() as seen, recorded_spans() as ended:
        with tracing.span(telemetry.RPC_SERVER, "current"):
            metrics.record(telemetry.LOOP_LAG, 0.001, LUA)
        given = tracing.span(telemetry.RPC_SERVER, "given")
        metrics.record(telemetry.LOOP_LAG, 0.001, NANA, given)
        given.end()
        metrics.record(telemetry.LOOP_LAG, 0.001)
        current_id, given_id = [span.context.span_id for span in ended.get_finished_spans()]
        found = [[exemplar.span_id for exemplar in point.exemplars] for point in seen.points(telemetry.LOOP_LAG)]
        assert found == [[current_id], [given_id], []]


def test_series_are_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metrics, "MAX_SERIES", 3)
    with measured() as seen:
        for number in range(10):
            metrics.count(telemetry.ROUTING_DECISIONS, {telemetry.PERSONA: str(number)})
        points = seen.points(telemetry.ROUTING_DECISIONS)
        assert len(points) == 4
        assert seen.value(telemetry.ROUTING_DECISIONS, {"otel.metric.overflow": True}) == 7


def test_an_observer_that_fails_loses_its_own_values_alone(caplog: pytest.LogCaptureFixture):
    def fail() -> list[metrics.Observed]:
        raise KeyError("missing")

    with measured() as seen, caplog.at_level(logging.WARNING):
        metrics.observe(telemetry.MODEL_RUNNING, fail)
        metrics.observe(telemetry.MODEL_RUNNING, lambda: [(4, {telemetry.LOCATION: "here"})])
        metrics.observe(telemetry.CACHE_ENTRIES, lambda: [(1, {})])
        for _ in range(3):
            assert seen.value(telemetry.MODEL_RUNNING) == 4
            assert seen.value(telemetry.CACHE_ENTRIES) == 1
    assert [record.name for record in caplog.records] == [metrics.__name__]
    assert "ion.model.running" in caplog.text


def test_what_was_observed_before_the_stop_is_forgotten():
    with measured():
        metrics.observe(telemetry.ADMISSION_QUEUED, lambda: [(1, {})])
    with measured() as seen:
        assert not seen.points(telemetry.ADMISSION_QUEUED)
        metrics.observe(telemetry.ADMISSION_QUEUED, lambda: [(2, {})])
        assert seen.value(telemetry.ADMISSION_QUEUED) == 2
