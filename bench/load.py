"""Load by wrk, to this machine alone, and what it cost."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.chains import ROOT, Chain

SCRIPT = Path(__file__).with_name("post.lua")


@dataclass(frozen=True)
class Demand:
    """How many connections ask at once, each as fast as it is answered, or with a pause before every request."""

    connections: int
    pause_ms: int = 0

    def __str__(self) -> str:
        return f"{self.connections}, paced" if self.pause_ms else str(self.connections)


@dataclass(frozen=True)
class Run:
    """One run of one chain."""

    requests_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int
    unmeant: float  # share of the replies that did not come from where the cell wants them: cache or model
    cpu_ms: dict[str, float]  # a request, by process

    @property
    def cpu_ms_total(self) -> float:
        return sum(self.cpu_ms.values())


def ensure_wrk() -> None:
    """wrk from Debian's packages, installed where that is allowed."""
    if shutil.which("wrk") is None and os.geteuid() == 0:
        subprocess.run(["apt-get", "install", "--yes", "--quiet", "wrk"], check=False, stdout=subprocess.DEVNULL)
    if shutil.which("wrk") is None:
        raise SystemExit("bench: wrk is not installed: apt-get install wrk")


@contextmanager
def sample_bodies(*, distinct: bool) -> Iterator[Path]:
    """The sample messages as request bodies, one a line; with `distinct` no two requests are the same."""
    lines = (ROOT / "samples/messages.jsonl").read_text("utf-8").splitlines()
    messages = [json.loads(line)["message"].replace("@", "") for line in lines]
    mark = " @" if distinct else ""
    bodies = [json.dumps({"message": message + mark}, ensure_ascii=False) for message in messages]
    with tempfile.TemporaryDirectory(prefix="ion-bench-") as folder:
        path = Path(folder) / "bodies.jsonl"
        path.write_text("\n".join(bodies) + "\n", "utf-8")
        yield path


def run(chain: Chain, bodies: Path, *, demand: Demand, x_cache: str, seconds: float) -> Run:
    """Load for `seconds`; `x_cache` is what the header of that name is meant to say."""
    before = chain.cpu_seconds()
    finished = subprocess.run(
        ["wrk", "-t1", f"-c{demand.connections}", f"-d{seconds:g}s", "-s", str(SCRIPT), f"{chain.url}/chat"],
        env=os.environ
        | {
            "BENCH_BODIES": str(bodies),
            "BENCH_SEED": f"{random.getrandbits(48):x}",
            "BENCH_X_CACHE": x_cache,
            "BENCH_PAUSE_MS": str(demand.pause_ms),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    after = chain.cpu_seconds()
    result = json.loads(finished.stdout.strip().splitlines()[-1])
    return Run(
        requests_per_second=result["requests"] / result["seconds"],
        p50_ms=result["p50_ms"],
        p95_ms=result["p95_ms"],
        p99_ms=result["p99_ms"],
        failed=result["failed"],
        unmeant=result["unmeant"] / result["requests"],
        cpu_ms={name: 1000 * (after[name] - before[name]) / result["requests"] for name in before},
    )
