"""Every question of every panel and rule is about what ION declares."""

from __future__ import annotations

import pytest

from chassis.telemetry import METRICS
from tests.deploy.queries import known_series, panel_queries, parsed, rules, series_of

ALL = panel_queries() + [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]


@pytest.mark.parametrize(("where", "query"), ALL, ids=[f"{where}-{number}" for number, (where, _) in enumerate(ALL)])
def test_asks_for_what_is_declared(where: str, query: str) -> None:
    known, asked = known_series(), parsed(query)
    labels = set()
    for name, looked_at in asked.series:
        assert name in known, where
        assert looked_at <= known[name], f"{where}: {name} has not {looked_at - known[name]}"
        labels |= known[name]
    assert asked.grouped_by <= labels, where


def test_every_metric_is_shown() -> None:
    asked = {name for _, query in panel_queries() for name, _ in parsed(query).series}
    hidden = [each.name for each in METRICS if not asked & series_of(each)]
    assert not hidden


def test_panels_ask_for_the_chosen_services_alone() -> None:
    for where, query in panel_queries():
        for name, looked_at in parsed(query).series:
            assert "job" in looked_at or name in ("up", "ALERTS"), where
