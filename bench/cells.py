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

# As fast as a chain answers; and at a rate that all of them keep up with easily: about 550 requests a second.
PACED = load.Demand(16, pause_ms=25)
DEMANDS = (load.Demand(1), load.Demand(16), load.Demand(64), PACED)
FULL = load.Demand(64)
DELAY_MS = 100


@dataclass(frozen=True)
class Cell:
    """The runs of one chain under one demand, in order of rounds."""

    chain: str
    demand: load.Demand
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
Memory = dict[str, dict[str, float]]  # MB by chain and process


def cached(rounds: int, seconds: float) -> tuple[list[Cell], Memory]:
    """Cached replies, and the memory of each process after all that load."""
    opened: Opened = {
        "bare": chains.bare(x_cache="hit"),
        "three": chains.three(),
        "three, Redis": chains.three_on_redis(),
        "three, traced 1 %": chains.three(chains.traced("0.01")),
        "three, traced 100 %": chains.three(chains.traced("1.0")),
        "standalone": chains.standalone(),
    }
    with load.sample_bodies(distinct=False) as bodies:
        return interleave(opened, bodies, "hit", DEMANDS, rounds, seconds)


def delayed(rounds: int, seconds: float) -> tuple[list[Cell], Memory]:
    """A model that takes 100 ms, no two messages equal, 64 connections: 640 requests a second would be ideal."""
    with chains.fake_vertex(DELAY_MS) as env, load.sample_bodies(distinct=True) as bodies:
        opened: Opened = {
            "bare": chains.bare(x_cache="miss", delay_seconds=DELAY_MS / 1000),
            "three": chains.three(env),
            "standalone": chains.standalone(env),
        }
        return interleave(opened, bodies, "miss", (FULL,), rounds, seconds)


def interleave(
    opened: Opened, bodies: Path, x_cache: str, demands: tuple[load.Demand, ...], rounds: int, seconds: float
) -> tuple[list[Cell], Memory]:
    """All chains at once, driven in turn; their memory is that after the load."""
    cells = [Cell(name, demand) for demand in demands for name in opened]
    with ExitStack() as stack, Progress(transient=True) as progress:
        running = {name: stack.enter_context(chain) for name, chain in opened.items()}
        task = progress.add_task("load", total=len(opened) + rounds * len(cells))

        def run(chain: chains.Chain, demand: load.Demand, length_seconds: float) -> load.Run:
            result = load.run(chain, bodies, x_cache=x_cache, demand=demand, seconds=length_seconds)
            progress.advance(task)
            return result

        for chain in running.values():  # caches filled, code warm
            run(chain, load.Demand(4), 2)
        for _ in range(rounds):
            for cell in cells:
                cell.runs.append(run(running[cell.chain], cell.demand, seconds))
        return cells, {name: chain.resident_mb() for name, chain in running.items()}


def starts(rounds: int) -> dict[str, list[float]]:
    """Seconds from the start of the process to the first healthy answer; `three` is all three at the same time."""
    with chains.fake_vertex(0) as env:
        kinds: dict[str, Callable[[], AbstractContextManager[object]]] = {
            "standalone, offline": chains.standalone,
            "standalone, Vertex": lambda: chains.standalone(env),
            "gateway_http": lambda: chains.service("gateway_http"),
            "router_service": lambda: chains.service("router_service"),
            "llm_gateway, offline": lambda: chains.service("llm_gateway"),
            "llm_gateway, Vertex": lambda: chains.service("llm_gateway", env),
            "three, Vertex": lambda: chains.three(env),
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for number in range(rounds + 1):
            for name, opened in kinds.items():
                seconds = _seconds_to_start(opened)
                if number:  # the first round writes the bytecode
                    times[name].append(seconds)
        return times


def _seconds_to_start(opened: Callable[[], AbstractContextManager[object]]) -> float:
    started = time.perf_counter()
    with opened():
        return time.perf_counter() - started
