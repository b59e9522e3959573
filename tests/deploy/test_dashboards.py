from __future__ import annotations

import json

import yaml

from deploy.grafana.dashboards import written
from tests.deploy.queries import DASHBOARDS, DEPLOY, panels

PROVISIONING = DEPLOY / "grafana" / "provisioning"


def test_files_are_what_the_code_makes() -> None:
    assert {path.name: path.read_text() for path in DASHBOARDS} == written(), "make dashboards"


def test_panels_are_within_the_grid_and_do_not_overlap() -> None:
    for path in DASHBOARDS:
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text())["panels"]:
            at = panel["gridPos"]
            columns, lines = range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
            cells = {(column, line) for column in columns for line in lines}
            assert max(columns) < 24, panel["title"]
            assert not taken & cells, panel["title"]
            taken |= cells


def test_every_panel_has_a_unit_or_shows_shares() -> None:
    for where, panel in panels():
        assert panel["type"] == "piechart" or panel["fieldConfig"]["defaults"]["unit"], where


def test_queries_of_a_panel_have_names_of_their_own() -> None:
    for where, panel in panels():
        names = [target["refId"] for target in panel["targets"]]
        assert all(names), where
        assert len(set(names)) == len(names), where


def test_exemplars_lead_to_the_trace() -> None:
    sources = yaml.safe_load((PROVISIONING / "datasources" / "ion.yml").read_text())["datasources"]
    by_uid = {source["uid"]: source for source in sources}
    (leads,) = by_uid["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert leads == {"name": "trace_id", "datasourceUid": "jaeger"}  # as chassis/observability/exposition.py names it
    assert by_uid["jaeger"]["type"] == "jaeger"
    shown = [target for _, panel in panels() for target in panel["targets"] if target.get("exemplar")]
    assert shown
    assert all("_bucket" in target["expr"] for target in shown)
