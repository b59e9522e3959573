"""The measurements: every cell runs its chains in turn, round after round, so that all see the same machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from rich.progress import Progress

from bench import chains, load

CONNECTIONS = (1, 16, 64)
DELAY_MS = 100


@dataclass(frozen=True)
class Cell:
    """The runs of one chain at one number of connections, in order of rounds."""

    chain: str
    connections: int
    runs: list[load.Run] = field(default_factory=list)

    def median(self, value: Callable[[load.Run], float]) -> float:
        return statistics.median(map(value, self.runs))

    def spread(self, value: Callable[[load.Run], float]) -> tuple[float, float]:
        values = list(map(value, self.runs))
        return min(values), max(values)


def ratio(ours: Cell, other: Cell, value: Callable[[load.Run], float]) -> float:
    """The median of the ratios of each round: what both saw within seconds of each other."""
    return statistics.median(value(a) / value(b) for a, b in zip(ours.runs, other.runs, strict=True))


Opened = dict[str, AbstractContextManager[chains.Chain]]


def cached(rounds: int, seconds: float) -> tuple[list[Cell], dict[str, dict[str, float]]]:
    """Cached replies, and the memory of each process after all that load."""
    opened: Opened = {
        "bare": chains.bare(),
        "three": chains.three(),
        "three, Redis": chains.three_on_redis(),
        "three, traced 1 %": chains.three(chains.traced("0.01")),
        "three, traced 100 %": chains.three(chains.traced("1.0")),
        "standalone": chains.standalone(),
    }
    return _interleave(opened, load.sample_bodies(distinct=False), CONNECTIONS, rounds, seconds)


def delayed(rounds: int, seconds: float) -> tuple[list[Cell], dict[str, dict[str, float]]]:
    """A model that takes 100 ms, no two messages equal, 64 connections: 640 requests a second would be ideal."""
    with chains.fake_vertex(DELAY_MS) as env:
        opened: Opened = {
            "bare": chains.bare(DELAY_MS / 1000),
            "three": chains.three(env),
            "standalone": chains.standalone(env),
        }
        return _interleave(opened, load.sample_bodies(distinct=True), (64,), rounds, seconds)


def _interleave(
    opened: Opened, bodies: Path, connections: tuple[int, ...], rounds: int, seconds: float
) -> tuple[list[Cell], dict[str, dict[str, float]]]:
    cells = [Cell(name, count) for count in connections for name in opened]
    with ExitStack() as stack, Progress(transient=True) as progress:
        running = {name: stack.enter_context(chain) for name, chain in opened.items()}
        for chain in running.values():  # caches filled, code warm
            load.run(chain, bodies, connections=4, seconds=1)
        task = progress.add_task("load", total=rounds * len(cells))
        for _ in range(rounds):
            for cell in cells:
                cell.runs.append(load.run(running[cell.chain], bodies, connections=cell.connections, seconds=seconds))
                progress.advance(task)
        return cells, {name: chain.resident_mb() for name, chain in running.items()}


def starts(rounds: int) -> dict[str, list[float]]:
    """Seconds from the start of the process to the first healthy answer; `three` is all three, one after the other."""
    with chains.fake_vertex(0) as env:
        kinds: dict[str, Callable[[], AbstractContextManager[chains.Chain]]] = {
            "standalone, offline": chains.standalone,
            "standalone, Vertex": lambda: chains.standalone(env),
            "three, offline": chains.three,
            "three, Vertex": lambda: chains.three(env),
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, opened in kinds.items():
                started = time.perf_counter()
                with opened():
                    times[name].append(time.perf_counter() - started)
        return times
