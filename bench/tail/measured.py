"""What has been found, and what was to be reached."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from bench.report import Budget, machine
from bench.tail.capacity import Flood, Memory
from bench.tail.latency import Cell
from bench.tail.loads import Load, pooled
from bench.tail.promptness import Coalescing


@dataclass
class Measured:
    """All that one call of the bench has found; what it was not asked for is empty."""

    rounds: int
    seconds: float
    latency: list[Cell] = field(default_factory=list)
    repeats: dict[str, Load] = field(default_factory=dict)
    outages: dict[str, list[Load]] = field(default_factory=dict)
    concurrency: dict[str, list[float]] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)
    floods: dict[str, Flood] = field(default_factory=dict)
    cancelling: dict[str, list[float]] = field(default_factory=dict)
    coalescing: Coalescing | None = None
    machine: dict[str, str] = field(default_factory=machine)


def targets(measured: Measured) -> Iterator[Budget]:
    """Every target for which there is a measurement, those of latency in seconds."""
    for cell in measured.latency:
        if cell.who == "ours":
            yield from _latency_targets(cell)
    for name, load in measured.repeats.items():
        yield Budget(f"repeats alone, {name}: P99", 1000 * load.percentile(99), 10, "ms")
    if measured.outages:
        yield from _outage_targets(measured.outages)
    yield from _load_targets(measured)
    for method, took_ms in measured.cancelling.items():
        yield Budget(f"{method} cancelled: end of the model call, most", max(took_ms), 100, "ms")
    if measured.coalescing:
        yield from _coalescing_targets(measured.coalescing)


# P50, P95 and P99 in seconds, by case; None where nothing was asked.
_LIMITS: dict[str, tuple[float | None, float | None, float | None]] = {
    "distinct": (None, 1.85, 2.8),
    "35 % repeats": (0.58, 1.7, 2.6),
    "early first token": (None, None, 2.0),
}


def _latency_targets(cell: Cell) -> Iterator[Budget]:
    what = f"{cell.case}, {cell.rate} req/s"
    for name, value, limit in zip(("P50", "P95", "P99"), cell.percentiles(), _LIMITS.get(cell.case, ()), strict=False):
        if limit is not None:
            yield Budget(f"{what}: {name}", value, limit, "s")
    yield Budget(f"{what}: extra calls", 100 * cell.extra, 10, "%")


def _outage_targets(outages: dict[str, list[Load]]) -> Iterator[Budget]:
    healthy = outages["healthy"]
    for name, runs in outages.items():
        if name == "healthy":
            continue
        load = pooled(runs)
        answered = 100 * load.count("OK") / len(load)
        slower = load.percentile(99) / pooled(healthy).percentile(99)
        yield Budget(f"preferred location {name}: answered", answered, 100, "%", least=True)
        yield Budget(f"preferred location {name}: P99 to that of the healthy runs", slower, 1.3, "x")


def _load_targets(measured: Measured) -> Iterator[Budget]:
    for name, rates in measured.concurrency.items():
        if name == "empty chain":
            continue
        what = f"model of 100 ms, 64 callers, {name}"
        yield Budget(what, statistics.median(rates), 590, "req/s", least=True)
    if measured.memory:
        yield from _memory_targets(measured.memory)
    for name, flood in measured.floods.items():
        yield from _flood_targets(name, flood)


def growth_mb(memory: list[Memory]) -> float:
    """Of the resident memory, once a fifth of the replies had filled what there is to fill: a line through the rest."""
    settled = [entry for entry in memory if entry.replies >= memory[-1].replies / 5]
    slope, _ = np.polyfit([entry.replies for entry in settled], [entry.resident_mb for entry in settled], 1)
    return float(slope * (settled[-1].replies - settled[0].replies))


def _memory_targets(memory: list[Memory]) -> Iterator[Budget]:
    replies = f"{memory[-1].replies} distinct replies"
    yield Budget(f"{replies}: growth after the first fifth", growth_mb(memory), 10, "MB")
    yield Budget(f"{replies}: near cache", max(entry.near_entries for entry in memory), 1000, "entries")


def _flood_targets(name: str, flood: Flood) -> Iterator[Budget]:
    callers = f"{flood.callers} callers at once, {name}"
    yield Budget(f"{callers}: neither answered nor shed clearly", sum(flood.other.values()), 0, "")
    growth_kb = 1000 * (flood.peak_mb - flood.before_mb) / flood.callers
    yield Budget(f"{callers}: memory at its peak above before, each", growth_kb, 30, "kB")


def _coalescing_targets(coalescing: Coalescing) -> Iterator[Budget]:
    what = "equal requests on two replicas at once"
    yield Budget(f"{what}: model calls a pair", coalescing.model_calls_a_pair, 1, "")
    yield Budget(f"{what}: who follows is later by, median", statistics.median(coalescing.added_ms), 5, "ms")
