"""What Prometheus reads is what was measured, in both of its formats."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from prometheus_client import Metric as Family
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.samples import Sample

from chassis import telemetry
from chassis.observability import exposition, metrics, tracing
from chassis.observability.exposition import Exposition
from chassis.settings import Bind
from chassis.telemetry import Instrument
from tests.observed import recorded_spans

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PARSERS = {
    "": parser.text_string_to_metric_families,
    OPENMETRICS: openmetrics_parser.text_string_to_metric_families,
}
FORMATS = list(PARSERS)
LUA = {telemetry.PERSONA: "Lua"}


@pytest.fixture
def shown() -> Iterator[Exposition]:
    provider = metrics.start([exposition.start()], Resource({"service.name": "ion", "service.version": "1"}))
    current = exposition.current()
    assert current
    yield current
    exposition.stop()
    metrics.stop()
    provider.shutdown()


def families(shown: Exposition, accept: str) -> dict[str, Family]:
    text, media_type = shown.render(accept)
    assert media_type.startswith(accept.partition(";")[0] or "text/plain")
    return {family.name: family for family in PARSERS[accept](text.decode())}


def samples(shown: Exposition, accept: str = OPENMETRICS) -> list[Sample]:
    return [sample for family in families(shown, accept).values() for sample in family.samples]


@pytest.mark.parametrize("accept", FORMATS)
def test_every_declared_metric_goes_by_its_declared_name(shown: Exposition, accept: str):
    for metric in telemetry.METRICS:
        if metric.instrument is Instrument.HISTOGRAM:
            metrics.record(metric, 1.0)
        else:
            metrics.observe(metric, lambda: [(1.0, {})])
    seen = {sample.name for sample in samples(shown, accept)} - {"target_info"}
    plain = {metric.prometheus_name for metric in telemetry.METRICS if metric.instrument is not Instrument.HISTOGRAM}
    histograms = {metric.prometheus_name for metric in telemetry.METRICS} - plain
    assert seen == plain | {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}
    kinds = {name: family.type for name, family in families(shown, accept).items()}
    assert kinds["ion_routing_decisions"] == "counter"
    assert kinds["ion_cache_entries"] == kinds["ion_admission_queued"] == "gauge"
    assert kinds["ion_event_loop_lag_seconds"] == "histogram"


@pytest.mark.parametrize("accept", FORMATS)
def test_values_and_attributes(shown: Exposition, accept: str):
    metrics.count(telemetry.ROUTING_DECISIONS, LUA, 2)
    metrics.observe(telemetry.CACHE_ENTRIES, lambda: [(0.25, {})])
    told = samples(shown, accept)
    assert ("ion_routing_decisions_total", {"ion_persona": "Lua"}, 2) in [sample[:3] for sample in told]
    assert ("ion_cache_entries", {}, 0.25) in [sample[:3] for sample in told]
    assert ("target_info", {"service_name": "ion", "service_version": "1"}, 1) in [sample[:3] for sample in told]


@pytest.mark.parametrize("accept", FORMATS)
def test_buckets_hold_what_is_not_above_their_bound(shown: Exposition, accept: str):
    lag = telemetry.LOOP_LAG
    for value in (0.0001, lag.buckets[1], lag.buckets[1] + 1e-6, 99.0):
        metrics.record(lag, value, {telemetry.DB_POOL: "a"})
    (family,) = [found for found in families(shown, accept).values() if found.type == "histogram"]
    assert all(sample.labels["db_client_connection_pool_name"] == "a" for sample in family.samples)
    by_bound = {float(sample.labels["le"]): sample.value for sample in family.samples if "le" in sample.labels}
    assert list(by_bound) == [*lag.buckets, math.inf]
    assert list(by_bound.values()) == [1, 2, *[3] * (len(lag.buckets) - 2), 4]
    ends = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples if "le" not in sample.labels}
    assert ends == {"count": 4, "sum": pytest.approx(99.0021, abs=1e-4)}


def test_the_trace_of_a_recorded_span_is_an_exemplar_of_its_bucket(shown: Exposition):
    with recorded_spans():
        metrics.record(telemetry.LOOP_LAG, 0.0001)
        with tracing.span(telemetry.RPC_SERVER, "a") as span:
            metrics.record(telemetry.LOOP_LAG, telemetry.LOOP_LAG.buckets[1])
    for _who_asks in ("one", "another"):
        told = [sample for sample in samples(shown) if sample.exemplar]
        assert [float(sample.labels["le"]) for sample in told] == [telemetry.LOOP_LAG.buckets[1]]
        exemplar = told[0].exemplar
        assert exemplar.labels == {"trace_id": span.call.trace_id, "span_id": span.call.span_id}
        assert exemplar.value == telemetry.LOOP_LAG.buckets[1]
        assert time.time() - 60 < float(exemplar.timestamp) <= time.time()


def test_the_older_format_has_no_exemplars(shown: Exposition):
    with recorded_spans(), tracing.span(telemetry.RPC_SERVER, "a") as span:
        metrics.record(telemetry.LOOP_LAG, 0.001)
    text, _ = shown.render("text/plain")
    assert b"ion_event_loop_lag_seconds_bucket" in text
    assert span.call.trace_id.encode() not in text


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.text())
@pytest.mark.parametrize("accept", FORMATS)
def test_any_text_may_be_an_attribute(shown: Exposition, accept: str, value: str):
    observed = [(1.0, {telemetry.PERSONA: value})]
    metrics._observers.clear()
    metrics.observe(telemetry.MODEL_RUNNING, lambda: observed)
    (sample,) = [sample for sample in samples(shown, accept) if sample.name == "ion_model_running"]
    assert sample.labels == {"ion_persona": value}


@pytest.mark.parametrize("accept", FORMATS)
def test_half_a_character_does_not_spoil_the_rest(shown: Exposition, accept: str):
    metrics.observe(telemetry.MODEL_RUNNING, lambda: [(1.0, {telemetry.PERSONA: "a\ud800"})])
    metrics.observe(telemetry.CACHE_ENTRIES, lambda: [(2.0, {})])
    told = {sample.name: sample for sample in samples(shown, accept)}
    assert told["ion_model_running"].labels == {"ion_persona": "a?"}
    assert told["ion_cache_entries"].value == 2


@pytest.mark.parametrize("accept", FORMATS)
def test_what_is_no_number_is_left_out(shown: Exposition, accept: str):
    metrics.observe(telemetry.CACHE_ENTRIES, lambda: [(math.nan, {})])
    told = {sample.name: sample.value for sample in samples(shown, accept)}
    assert "ion_cache_entries" not in told


@pytest.mark.parametrize(("accept", "text"), [("", b""), (OPENMETRICS, b"# EOF\n")])
def test_nothing_measured(shown: Exposition, accept: str, text: bytes):
    assert shown.render(accept)[0] == text


def test_what_is_not_declared_is_left_out(shown: Exposition):
    metrics._meter.create_counter("somebody.elses").add(1)
    metrics.count(telemetry.CACHE_STORED)
    assert set(families(shown, OPENMETRICS)) == {"target", "ion_cache_stored"}


def test_nothing_is_shown_while_metrics_are_off():
    assert exposition.current() is None


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_of_its_own(shown: Exposition, host: str):
    metrics.count(telemetry.CACHE_STORED)
    with exposition.serving(Bind(host, 0)) as port:
        url = f"http://{Bind(host, port)}"
        answer = httpx.get(f"{url}/metrics?name[]=other", headers={"accept": OPENMETRICS, "accept-encoding": "gzip"})
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith(openmetrics.exposition.CONTENT_TYPE_LATEST)
        assert answer.headers["content-encoding"] == "gzip"
        assert "ion_cache_stored_total 1.0\n" in answer.text
        assert httpx.get(f"{url}/").status_code == 404
        assert httpx.get(f"{url}/metrics/more").status_code == 404
        assert httpx.post(f"{url}/metrics").status_code == 501
        exposition.stop()
        assert httpx.get(f"{url}/metrics").status_code == 404
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/metrics")
    assert "metrics" not in [thread.name for thread in threading.enumerate()]


def test_who_says_nothing_keeps_nobody_waiting(shown: Exposition, monkeypatch: pytest.MonkeyPatch):
    assert 0 < exposition._Handler.timeout <= 10
    monkeypatch.setattr(exposition._Handler, "timeout", 0.05)
    metrics.count(telemetry.CACHE_STORED)
    with exposition.serving(Bind("127.0.0.1", 0)) as port, socket.create_connection(("127.0.0.1", port)) as silent:
        assert httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
        assert silent.recv(1) == b""  # hung up on


def test_a_port_that_is_taken_ends_the_start_with_one_line(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = Bind("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(SystemExit), exposition.serving(bind):
            pass
    assert capsys.readouterr().err == f"ion: ION_METRICS_BIND={bind}: cannot listen there: address already in use\n"
