"""What ION tells of itself keeps to the conventions, and is documented as it is declared."""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from pkgutil import iter_modules

import opentelemetry.semconv as conventions
import pytest

from chassis import telemetry
from chassis.observability import documentation
from chassis.telemetry import ATTRIBUTES, METRICS, SPANS, Instrument, Metric

# Of a request, and without bound: for spans, never for metrics.
OF_ONE_REQUEST = {
    telemetry.URL_PATH,
    telemetry.RESONANCE_KEY,
    telemetry.GEN_AI_CONVERSATION,
    telemetry.GEN_AI_SYSTEM_INSTRUCTIONS,
    telemetry.GEN_AI_INPUT_MESSAGES,
    telemetry.GEN_AI_OUTPUT_MESSAGES,
    telemetry.DB_SUMMARY,
    telemetry.ROUTING_PERSONAS,
    telemetry.SECONDARY_PERSONA,
}


def standard(kind: str) -> set[str]:
    """All names of the conventions, "attributes" or "metrics"."""
    names: set[str] = set()
    for package in (conventions, import_module("opentelemetry.semconv._incubating")):
        for found in iter_modules(import_module(f"{package.__name__}.{kind}").__path__):
            module = import_module(f"{package.__name__}.{kind}.{found.name}")
            names |= {value for value in vars(module).values() if isinstance(value, str)}
    return names


def test_the_page_is_what_is_declared():
    page = documentation.PAGE.read_text(encoding="utf-8")
    assert documentation.filled(page) == page, "make telemetry"


def test_the_page_has_every_list():
    page = documentation.PAGE.read_text(encoding="utf-8")
    for name in (*ATTRIBUTES, *(each.name for each in (*METRICS, *SPANS)), *telemetry.LOG_FIELDS):
        assert f"`{name}`" in page


def test_what_is_not_ions_is_of_the_conventions():
    assert {key for key in ATTRIBUTES if not key.startswith("ion.")} <= standard("attributes")
    assert {metric.name for metric in METRICS if not metric.name.startswith("ion.")} <= standard("metrics")


def test_what_is_ions_is_new():
    assert not set(ATTRIBUTES) & standard("attributes") & {key for key in ATTRIBUTES if key.startswith("ion.")}


@pytest.mark.parametrize("declared", [*SPANS, *METRICS], ids=lambda declared: declared.name)
def test_every_attribute_is_declared_once(declared):
    assert set(declared.attributes) <= set(ATTRIBUTES)
    assert len(set(declared.attributes)) == len(declared.attributes)
    assert {key for key in re.findall(r"{([a-z_.]+)}", declared.name) if "." in key} <= set(declared.attributes)


def test_every_attribute_is_used():
    used = {key for declared in (*SPANS, *METRICS) for key in declared.attributes}
    assert set(ATTRIBUTES) == used


def test_names_are_unique_also_in_prometheus():
    for names in (
        Counter(metric.name for metric in METRICS),
        Counter(series for metric in METRICS for series in series_of(metric)),
        Counter(span.name + span.kind.name for span in SPANS),
    ):
        assert set(names.values()) == {1}


def series_of(metric: Metric) -> list[str]:
    if metric.instrument is not Instrument.HISTOGRAM:
        return [metric.prometheus_name]
    return [f"{metric.prometheus_name}_{part}" for part in ("bucket", "sum", "count")]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_in_prometheus(metric):
    """Of the data model, with the unit, and `_total` of counters alone."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.prometheus_name)
    assert metric.prometheus_name.endswith("_total") == (metric.instrument is Instrument.COUNTER)
    unit = {"s": "_seconds", "By": "_bytes"}.get(metric.unit, "")
    assert unit in metric.prometheus_name
    assert unit or re.fullmatch(r"{\w+}", metric.unit)  # others have words of their own in Prometheus: 1 is a ratio


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metrics_have_few_series(metric):
    assert not set(metric.attributes) & OF_ONE_REQUEST
    assert len(metric.attributes) <= 6
    assert bool(metric.buckets) == (metric.instrument is Instrument.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert len(metric.buckets) <= 20


def test_alerts_have_the_buckets_that_they_ask_for():
    """A percentile is as exact as the bounds around it: 2, 3 and 5 s are those of the alerts."""
    assert {2.0, 3.0, 5.0} <= set(telemetry.HTTP_DURATION.buckets)
