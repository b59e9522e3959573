"""What is measured, as processes of its own: gateways, and three fakes that stand for the locations of Vertex."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench.chains import START_SECONDS, free_port, python
from ion.llm.v1 import llm_pb2

LOCATIONS: Final = ("us-central1", "us-west1", "europe-west1")
_MODEL_CALLS: Final = ("GenerateContent", "StreamGenerateContent")
_PROMPT_RECONNECTS: Final = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 50)]


@dataclass(frozen=True)
class Fakes:
    """Running fakes by location: the ports of their services and of their control."""

    ports: dict[str, int]
    controls: dict[str, int]

    def env(self) -> dict[str, str]:
        """The settings that point a gateway at them."""
        return {
            "ION_LLM_BACKEND": "vertex",
            "ION_VERTEX_INSECURE": "1",
            "ION_VERTEX_LOCATIONS": ",".join(LOCATIONS),
            "ION_VERTEX_ENDPOINTS": ",".join(f"{name}=127.0.0.1:{port}" for name, port in self.ports.items()),
        }

    def tell(self, command: str, *locations: str) -> list[str]:
        """What they answer; all of them where none is named."""
        answers = [_tell(self.controls[location], command) for location in locations or LOCATIONS]
        if any(answer.startswith("error") for answer in answers):
            raise ValueError(answers)
        return answers

    def calls(self) -> int:
        """Model calls that have come in since the start."""
        counts: list[dict[str, int]] = [json.loads(answer) for answer in self.tell("counts")]
        return sum(count.get(method, 0) for count in counts for method in _MODEL_CALLS)


def _tell(port: int, command: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection, connection.makefile("rw") as lines:
        lines.write(f"{command}\n")
        lines.flush()
        return lines.readline().strip()


@contextmanager
def fakes() -> Iterator[Fakes]:
    with ExitStack() as stack:
        free = _free_ports(2 * len(LOCATIONS))
        started = Fakes(
            dict(zip(LOCATIONS, free, strict=False)), dict(zip(LOCATIONS, free[len(LOCATIONS) :], strict=True))
        )
        for location in LOCATIONS:
            ports = ("--port", str(started.ports[location]), "--control-port", str(started.controls[location]))
            stack.enter_context(python("tests.fake_vertex", "--location", location, *ports))
        for port in started.controls.values():
            _wait_for_control(port)
        yield started


def _free_ports(count: int) -> list[int]:
    """All taken at the same time, so that no two are the same."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]


def _wait_for_control(port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        try:
            _tell(port, "counts")
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"no fake answers on port {port}")


@dataclass(frozen=True)
class Gateway:
    """A running llm_gateway."""

    target: str
    process: psutil.Process

    def resident_mb(self) -> float:
        return float(self.process.memory_info().rss / 1e6)

    def peak_mb(self) -> float:
        """The most that was ever resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024 / 1e6

    def statistics(self) -> Any:
        with grpc.insecure_channel(self.target) as channel:
            method = channel.unary_unary(
                "/ion.llm.v1.LlmGatewayService/GetStatistics",
                request_serializer=llm_pb2.GetStatisticsRequest.SerializeToString,
                response_deserializer=llm_pb2.GetStatisticsResponse.FromString,
            )
            return method(llm_pb2.GetStatisticsRequest(), timeout=5)


@contextmanager
def gateway(env: Mapping[str, str]) -> Iterator[Gateway]:
    target = f"127.0.0.1:{free_port()}"
    with python("llm_gateway", env={"ION_LLM_BIND": target} | dict(env)) as process:
        with grpc.insecure_channel(target, options=_PROMPT_RECONNECTS) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            health.Check(health_pb2.HealthCheckRequest(), timeout=START_SECONDS, wait_for_ready=True)
        yield Gateway(target, process)
