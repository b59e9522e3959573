"""Runs the client program, and what is read off its answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.chains import FOREIGN, ROOT
from bench.tail.client import Answer, Plan

# Of one load; more than any plan asks for.
MOST_SECONDS: Final = 1200.0

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Load:
    """The answers to one plan or more."""

    answers: tuple[Answer, ...]

    def after(self, seconds: float) -> Load:
        """Those to what was due later: without the warming up."""
        return Load(tuple(answer for answer in self.answers if answer.due >= seconds))

    def __add__(self, other: Load) -> Load:
        return Load(self.answers + other.answers)

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def seconds(self) -> Seconds:
        return np.array([answer.seconds for answer in self.answers if answer.outcome == "OK"])

    @property
    def first(self) -> Seconds:
        return np.array([answer.first for answer in self.answers if answer.first is not None])

    def percentile(self, percentile: float) -> float:
        return float(np.percentile(self.seconds, percentile))

    @property
    def ends(self) -> Seconds:
        """When each had its answer, from the start."""
        return np.array([answer.due + answer.seconds for answer in self.answers])

    def count(self, outcome: str) -> int:
        return sum(answer.outcome == outcome for answer in self.answers)

    @property
    def failed(self) -> int:
        return len(self) - self.count("OK")

    @property
    def spared(self) -> int:
        """Requests that made no model call of their own."""
        return sum(answer.cache in ("HIT", "STALE", "COALESCED") for answer in self.answers)


def pooled(runs: Iterable[Load]) -> Load:
    return sum(runs, Load(()))


@contextmanager
def asking(plan: Plan) -> Iterator[Callable[[], Load]]:
    """Gives, once the load has begun, a function that waits for all answers."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    with tempfile.TemporaryDirectory(prefix="ion-bench-") as folder:
        answers = Path(folder) / "answers.json"
        client = subprocess.Popen(
            [sys.executable, "-m", "bench.tail.client", str(answers)],
            cwd=ROOT,
            env=inherited | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos/gen'}"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            _start(client, plan)
            yield lambda: _finish(client, answers)
        finally:
            client.kill()
            client.wait()


def _start(client: subprocess.Popen[str], plan: Plan) -> None:
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write(json.dumps(asdict(plan)))
    client.stdin.close()
    if client.stdout.readline() != "started\n":
        raise RuntimeError("the client has not started")


def _finish(client: subprocess.Popen[str], answers: Path) -> Load:
    if client.wait(timeout=MOST_SECONDS):
        raise RuntimeError("the client has failed")
    return Load(tuple(Answer(*row) for row in json.loads(answers.read_text("utf-8"))))


def run(plan: Plan, *, meanwhile: Callable[[], None] | None = None) -> Load:
    """All answers; `meanwhile` is called as the load begins."""
    with asking(plan) as answers:
        if meanwhile is not None:
            meanwhile()
        return answers()


def run_together(plans: Iterable[Plan]) -> Load:
    """All answers of several clients that ask at the same time."""
    with ExitStack() as stack:
        asked = [stack.enter_context(asking(plan)) for plan in plans]
        return pooled(answers() for answers in asked)
