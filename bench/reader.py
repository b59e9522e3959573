"""What reading and routing cost on one core, in microseconds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from router_service.analysis import INTENTS, PACES, TONES, Reader
from router_service.personas import DEFAULT_DIRECTORY, Affinity, PersonaTable, load_personas
from router_service.routing import choose_all, signals_of

ENGLISH = "The nightly build keeps failing on the integration tests and I cannot see what changed since Monday"
KOREAN = (
    "어제부터 배포 파이프라인이 자꾸 실패하는데 원인을 모르겠어요. 로그를 봐도 이상한 점이 없고, "
    "팀원들도 다들 바빠서 물어보기가 어렵네요. 어디부터 보면 좋을까요? 지금 막막합니다."
)
READS = 5000
BATCH = 1000
PERSONAS = 10_000
ROUTED = 100  # messages at once to so many personas
REPEATS = 7
SAMPLES = Path(__file__).parents[1] / "samples" / "messages.jsonl"

_START = """
import time
begun = time.perf_counter()
import numpy
numpy_there = time.perf_counter()
from router_service.analysis import Reader
imported = time.perf_counter()
Reader.load()
loaded = time.perf_counter()
print(loaded - begun, loaded - numpy_there, loaded - imported)
"""


def measure() -> dict[str, float]:
    """Microseconds by step."""
    with _one_core():
        return dict(_singles()) | dict(_batch()) | dict(_many_personas()) | dict(_starts())


@contextmanager
def _one_core() -> Iterator[None]:
    """For this thread, and those it starts meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _singles() -> Iterator[tuple[str, float]]:
    reader = Reader.load()
    for language, message in (("English", ENGLISH), ("Korean", KOREAN)):
        times = _each(partial(reader.read, message), READS)
        yield f"read, {len(message)} characters {language}", times[READS // 2]
        yield f"read, {len(message)} characters {language}, P99", times[READS * 99 // 100]
        evidence = _each(partial(reader.read, message, evidence=3), READS)
        yield f"read with evidence, {len(message)} characters {language}", evidence[READS // 2]


def _each(step: Callable[[], object], number: int) -> list[float]:
    """Ascending."""
    times = []
    for _ in range(number):
        started = time.perf_counter_ns()
        step()
        times.append((time.perf_counter_ns() - started) / 1000)
    return sorted(times)


def _batch() -> Iterator[tuple[str, float]]:
    reader = Reader.load()
    pairs = [" ".join(pair) for pair in pairwise(_samples())]
    for name, messages in (("samples", _samples()), ("pairs of samples", pairs)):
        batch = [messages[number % len(messages)] for number in range(BATCH)]
        characters = sum(map(len, batch)) / BATCH
        times = _each(partial(reader.read_all, batch), REPEATS)
        yield f"read {BATCH} at once, {name} ({characters:.0f} on average), each", times[REPEATS // 2] / BATCH


def _many_personas() -> Iterator[tuple[str, float]]:
    reader, table = Reader.load(), personas(PERSONAS)
    signals = [signals_of(reader.read(message), message) for message in _samples()[:ROUTED]]
    times = _each(lambda: choose_all(signals, table), 3)
    yield f"route {len(signals)} to {PERSONAS} personas at once, each", times[1] / len(signals)


def _samples() -> list[str]:
    return [json.loads(line)["message"] for line in SAMPLES.read_text(encoding="utf-8").splitlines()]


def personas(count: int) -> PersonaTable:
    """As many as are asked for, with affinities drawn at random."""
    random, shipped = np.random.default_rng(0), load_personas(DEFAULT_DIRECTORY).personas
    made = []
    for number in range(count):
        tone, pace, intent = (
            dict(zip(names, random.random(len(names)).round(3).tolist(), strict=True))
            for names in (TONES, PACES, INTENTS)
        )
        affinity = Affinity.model_construct(tone=tone, pace=pace, intent=intent)
        made.append(shipped[number % 4].model_copy(update={"name": f"P{number}", "affinity": affinity}))
    table = PersonaTable(tuple(made))
    table.prepare()
    return table


def _starts() -> Iterator[tuple[str, float]]:
    """Of fresh processes, after one that has written the bytecode."""
    runs = [_start() for _ in range(REPEATS + 1)][1:]
    names = ("import and load, NumPy too", "import and load, NumPy there already", "load of the weights, fresh process")
    for name, times in zip(names, zip(*runs, strict=True), strict=True):
        yield name, 1e6 * statistics.median(times)


def _start() -> tuple[float, ...]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([sys.executable, "-c", _START], env=environment, capture_output=True, text=True, check=True)
    return tuple(map(float, done.stdout.split()))
