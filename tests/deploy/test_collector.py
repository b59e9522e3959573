"""The collector's configuration, as far as it can be judged without a collector: `make collector-check` asks one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from chassis.telemetry import ATTRIBUTES
from tests.deploy.queries import DEPLOY, ROOT

CONFIG = yaml.safe_load((DEPLOY / "otel" / "collector.yaml").read_text())
PIPELINES = CONFIG["service"]["pipelines"]
COLLECTOR = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["otel-collector"]
MOST_REQUEST_SECONDS = 30  # ION_REQUEST_TIMEOUT_SECONDS


def components(kind: str) -> set[str]:
    return set(CONFIG[kind])


@pytest.mark.parametrize("kind", ["receivers", "processors", "exporters"])
def test_what_pipelines_use_is_defined_and_the_other_way_round(kind: str) -> None:
    assert {name for pipeline in PIPELINES.values() for name in pipeline[kind]} == components(kind)


def test_all_signals_are_taken() -> None:
    assert set(PIPELINES) == {"traces", "metrics", "logs"}
    assert all(pipeline["receivers"] == ["otlp"] for pipeline in PIPELINES.values())
    assert CONFIG["service"]["extensions"] == list(CONFIG["extensions"])


def test_memory_is_limited_first_and_batches_are_made_last() -> None:
    for pipeline in PIPELINES.values():
        assert pipeline["processors"][0] == "memory_limiter"
        assert pipeline["processors"][-1] == "batch"
    limiter = CONFIG["processors"]["memory_limiter"]
    assert limiter["spike_limit_mib"] < limiter["limit_mib"]
    at_work = int(COLLECTOR["environment"]["GOMEMLIMIT"].removesuffix("MiB"))
    assert at_work < limiter["limit_mib"] - limiter["spike_limit_mib"]


def test_ports_are_those_that_compose_publishes() -> None:
    protocols = CONFIG["receivers"]["otlp"]["protocols"]
    endpoints = [protocols["grpc"], protocols["http"], CONFIG["extensions"]["health_check"]]
    published = {port.rpartition(":")[2] for port in COLLECTOR["ports"]}
    assert {each["endpoint"].rpartition(":")[2] for each in endpoints} == published
    assert all(each["endpoint"].startswith("0.0.0.0:") for each in endpoints)


def test_prometheus_asks_the_ports_that_the_collector_opens() -> None:
    pushed = yaml.safe_load((DEPLOY / "prometheus" / "targets" / "pushed.yml").read_text())
    assert pushed[0]["targets"] == [_reached(CONFIG["exporters"]["prometheus"]["endpoint"])]
    (reader,) = CONFIG["service"]["telemetry"]["metrics"]["readers"]
    own = reader["pull"]["exporter"]["prometheus"]
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    static = [job["static_configs"] for job in prometheus["scrape_configs"] if job["job_name"] == "otel-collector"]
    assert static == [[{"targets": [f"otel-collector:{own['port']}"]}]]


def test_pushed_metrics_keep_their_job_and_their_exemplars() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (ion,) = (job for job in prometheus["scrape_configs"] if job["job_name"] == "ion")
    assert ion["honor_labels"] is True
    assert CONFIG["exporters"]["prometheus"]["enable_open_metrics"] is True


def test_errors_slow_requests_apologies_and_a_share_of_the_rest_are_kept() -> None:
    policies = {policy["type"]: policy for policy in CONFIG["processors"]["tail_sampling"]["policies"]}
    assert all(kind in policy and policy["name"] for kind, policy in policies.items())
    assert policies["status_code"]["status_code"] == {"status_codes": ["ERROR"]}
    assert policies["latency"]["latency"] == {"threshold_ms": 2000}
    apology = policies["boolean_attribute"]["boolean_attribute"]
    assert apology["value"] is True
    assert apology["key"] in ATTRIBUTES
    assert 0 < policies["probabilistic"]["probabilistic"]["sampling_percentage"] < 100
    assert len(policies) == len(CONFIG["processors"]["tail_sampling"]["policies"])


def test_traces_are_decided_on_when_they_are_whole() -> None:
    assert _seconds(CONFIG["processors"]["tail_sampling"]["decision_wait"]) > MOST_REQUEST_SECONDS


def test_the_handbook_says_how_many_requests_there_may_be() -> None:
    sampling = CONFIG["processors"]["tail_sampling"]
    (told,) = re.findall(r"up to\s+(\d+) requests a second", (ROOT / "docs" / "operations.md").read_text())
    most = sampling["num_traces"] / _seconds(sampling["decision_wait"])
    assert most - 10 < int(told) <= most


def test_metrics_of_a_process_that_died_end_before_the_alert_about_it_does() -> None:
    minutes = int(CONFIG["exporters"]["prometheus"]["metric_expiration"].removesuffix("m"))
    assert 3 <= minutes <= 5  # three exports; ServiceSilent compares with ten minutes ago


def test_traces_go_to_jaeger() -> None:
    assert PIPELINES["traces"]["exporters"] == ["otlp/jaeger"]
    assert CONFIG["exporters"]["otlp/jaeger"]["endpoint"] == "jaeger:4317"


def _reached(endpoint: str) -> str:
    return endpoint.replace("0.0.0.0", "otel-collector")


def _seconds(text: Any) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    assert found
    return int(found[1])
