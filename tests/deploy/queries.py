"""What dashboards and rules ask Prometheus for, taken apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml

from chassis.telemetry import METRICS, Instrument, Metric

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus" / "ion.rules.yml"
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
_OF_EACH_TARGET = {"job", "instance"}


@dataclass
class Asked:
    """The series that a query asks for, each with the labels that it looks at; and all labels that it groups by."""

    series: list[tuple[str, set[str]]] = field(default_factory=list)
    grouped_by: set[str] = field(default_factory=set)


def parsed(query: str) -> Asked:
    """Raises ValueError where it is no query."""
    asked = Asked()
    promql.walk(promql.parse(filled_in(query)), lambda node: _note(node, asked))
    return asked


def filled_in(query: str, *, window: str = "5m", jobs: str = ".+") -> str:
    """As Grafana fills in its variables."""
    replaced = query.replace("$__rate_interval", window).replace("$__range", window).replace("$job", jobs)
    assert "$" not in replaced, query
    return replaced


def _note(node: Any, asked: Asked) -> bool:
    if isinstance(node, promql.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql.VectorSelector):
        asked.series.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
    if isinstance(node, promql.AggregateExpr) and node.modifier:
        asked.grouped_by.update(node.modifier.labels)
    return True


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Of all dashboards, with where each is."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            if panel["type"] != "row":
                yield f"{path.stem}: {panel['title']}", panel


def panel_queries() -> list[tuple[str, str]]:
    return [(where, target["expr"]) for where, panel in panels() for target in panel["targets"]]


@cache
def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


@cache
def known_series() -> dict[str, set[str]]:
    """What there is to ask for, with its labels: what ION declares, what the rules record, and Prometheus' own."""
    known = {"up": _OF_EACH_TARGET, "ALERTS": {"alertname", "alertstate", "severity"}}
    known |= {rule["record"]: set() for rule in rules() if "record" in rule}
    for metric in METRICS:
        labels = {name.replace(".", "_") for name in metric.attributes} | _OF_EACH_TARGET
        known |= {name: labels | {"le"} if name.endswith("_bucket") else labels for name in series_of(metric)}
    return known


def series_of(metric: Metric) -> set[str]:
    name = metric.prometheus_name
    if metric.instrument is Instrument.HISTOGRAM:
        return {f"{name}_{part}" for part in ("count", "sum", "bucket")}
    return {name}
