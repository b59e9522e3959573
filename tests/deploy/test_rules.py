"""The rules, as Prometheus' own tool sees them; each alert has a section in the handbook."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

from tests.deploy.debian import promtool
from tests.deploy.queries import DEPLOY, ROOT, RULES, alerts

FOLDER = DEPLOY / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yml"))
TARGETS = sorted((FOLDER / "targets").glob("*.yml"))
HANDBOOK = ROOT / "docs" / "operations.md"


def run(*arguments: str | Path, cwd: Path = FOLDER) -> None:
    done = subprocess.run([promtool(), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("targets", TARGETS, ids=lambda path: path.stem)
def test_prometheus_takes_the_configuration(targets: Path, tmp_path: Path) -> None:
    for path in (FOLDER / "prometheus.yml", RULES):
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "targets.yml").write_text(targets.read_text())
    run("check", "config", "prometheus.yml", cwd=tmp_path)


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_alerts_fire_and_do_not(path: Path) -> None:
    run("test", "rules", path)


def test_each_alert_is_seen_firing_and_not() -> None:
    seen = defaultdict(set)
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for asked in test["alert_rule_test"]:
                seen[asked["alertname"]].add(bool(asked["exp_alerts"]))
    assert seen == {alert["alert"]: {True, False} for alert in alerts()}


def test_each_alert_has_its_section_in_the_handbook() -> None:
    sections = re.findall(r"^### (\w+)$", HANDBOOK.read_text(), re.MULTILINE)
    for alert in alerts():
        name = alert["alert"]
        assert name in sections
        assert alert["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("info", "warning", "critical")
    assert sorted(sections) == sorted(alert["alert"] for alert in alerts())
