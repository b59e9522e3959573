from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.queries import DEPLOY, ROOT

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
TELEMETRY = ("otel-collector", "jaeger", "prometheus", "grafana")


def compose_command() -> list[str]:
    """Of either version."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker") and subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0:
        return ["docker", "compose"]
    pytest.skip("no docker-compose here: the compose file is checked by its structure alone")


def config(**environment: str) -> dict[str, Any]:
    """As compose understands the file; asks no Docker engine."""
    command = [*compose_command(), "--project-directory", str(ROOT), "-f", str(ROOT / "docker-compose.yml")]
    env = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"]} | environment
    done = subprocess.run(
        [*command, "--profile", "telemetry", "config"], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout))


def test_compose_takes_the_file() -> None:
    services = config(ION_PROMETHEUS_TARGETS="services", ION_GRAFANA_IMAGE="registry.example/grafana:1")["services"]
    assert set(TELEMETRY) <= set(services)
    assert services["grafana"]["image"] == "registry.example/grafana:1"
    assert "/targets/services.yml" in str(services["prometheus"]["volumes"])


def test_telemetry_starts_by_its_profile_alone() -> None:
    assert all(SERVICES[name]["profiles"] == ["telemetry"] for name in TELEMETRY)


def test_ports_are_this_machines_own() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_images_have_versions_and_can_be_others() -> None:
    for name in TELEMETRY:
        assert re.fullmatch(r"\$\{ION_[A-Z]+_IMAGE:-[\w./-]+:v?\d+\.\d+\.\d+\}", SERVICES[name]["image"])


def test_what_is_mounted_is_there_and_cannot_be_changed() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, _, mode = (re.sub(r"\$\{\w+:-(\w+)\}", r"\1", volume)).partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), source
                assert mode.endswith(":ro"), volume
            else:
                assert source in COMPOSE["volumes"]


def test_containers_look_where_files_are_mounted() -> None:
    assert _target("otel-collector", "collector.yaml") in SERVICES["otel-collector"]["command"][0]
    assert _target("prometheus", "prometheus.yml") in SERVICES["prometheus"]["command"][0]
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    beside = Path(_target("prometheus", "prometheus.yml")).parent
    (files,) = (job["file_sd_configs"][0]["files"] for job in prometheus["scrape_configs"] if "file_sd_configs" in job)
    assert _target("prometheus", "ion.rules.yml") == str(beside / prometheus["rule_files"][0])
    assert _target("prometheus", "pushed}.yml") == str(beside / files[0])
    provided = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/ion.yml").read_text())["providers"][0]
    assert _target("grafana", "grafana/dashboards") == provided["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (DEPLOY / "grafana" / "dashboards" / Path(home).name).exists()


def test_exemplars_are_kept() -> None:
    assert "--enable-feature=exemplar-storage" in SERVICES["prometheus"]["command"]


def test_parts_find_each_other_by_name_and_port() -> None:
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/ion.yml").read_text())["datasources"]
    for url in (source["url"] for source in sources):
        name, port = re.fullmatch(r"http://([\w-]+):(\d+)", url).groups()  # type: ignore[union-attr]
        assert any(published.endswith(f":{port}") for published in SERVICES[name]["ports"]), url


def _target(service: str, source: str) -> str:
    (volume,) = (each for each in SERVICES[service]["volumes"] if each.split(":/")[0].endswith(source))
    return "/" + str(volume).split(":/")[1].removesuffix(":ro")
