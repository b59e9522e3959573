"""Results as tables, as JSON and as a plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from bench.cells import DELAY_MS, DEMANDS, FULL, Cell, ratio
from bench.load import Demand, Run

RESULTS = Path(__file__).with_name("results")
TRACED = "three, traced 1 %"


@dataclass
class Measured:
    """All that one call of the bench has found; what it was not asked for is empty."""

    rounds: int
    seconds: float
    cached: list[Cell] = field(default_factory=list)
    delayed: list[Cell] = field(default_factory=list)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    delayed_memory: dict[str, dict[str, float]] = field(default_factory=dict)
    starts: dict[str, list[float]] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=lambda: machine())


def machine() -> dict[str, str]:
    """What the numbers depend on; the load average is that of the minute before."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "grpcio": version("grpcio"),
        "load average before": f"{os.getloadavg()[0]:.1f}",
        "commit": _commit(),
    }


def _commit() -> str:
    """What was measured; "unknown" outside a checkout, marked where files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


@dataclass(frozen=True)
class Budget:
    """A limit of docs/design.md and what was measured; `least` where the limit is a least value."""

    what: str
    measured: float
    limit: float
    unit: str
    least: bool = False

    @property
    def held(self) -> bool:
        return self.measured >= self.limit if self.least else self.measured <= self.limit

    def row(self) -> list[str]:
        sign = ">=" if self.least else "<="
        return [
            self.what,
            f"{self.measured:.3g} {self.unit}",
            f"{sign} {self.limit:g} {self.unit}",
            "yes" if self.held else "NO",
        ]


def find(cells: list[Cell], chain: str, demand: Demand) -> Cell:
    return next(cell for cell in cells if (cell.chain, cell.demand) == (chain, demand))


def cpu(run: Run) -> float:
    return run.cpu_ms_total


def budgets(measured: Measured) -> Iterator[Budget]:
    """Every budget for which there is a measurement."""
    if measured.steps:
        yield from _step_budgets(measured.steps)
    if measured.cached:
        yield from _cached_budgets(measured.cached)
        for name, megabytes in measured.memory["three"].items():
            yield Budget(f"memory after load, {name}", megabytes, 100, "MB")
    if measured.delayed:
        yield from _delayed_budgets(find(measured.delayed, "three", FULL))
        yield Budget(
            "memory after load, llm with the Vertex client", measured.delayed_memory["three"]["llm"], 180, "MB"
        )
    if measured.starts:
        yield from _start_budgets({name: statistics.median(times) for name, times in measured.starts.items()})


def _step_budgets(steps: dict[str, float]) -> Iterator[Budget]:
    for language in ("English", "Korean"):
        yield Budget(
            f"analysis + routing, 100 characters, {language}", steps[f"analysis + routing, {language}"], 100, "µs"
        )
    for name, limit in (("/chat decoded, validated, encoded", 100), *_reading_limits(steps)):
        yield Budget(name, steps[name], limit, "µs")
    yield Budget("logging on the request path: a request's line", steps["one log record"], 50, "µs")


def _reading_limits(steps: dict[str, float]) -> Iterator[tuple[str, float]]:
    """What stands in docs/design.md of reading: one message, many, and the start."""
    for name in steps:
        if name.startswith("read, "):
            yield name, 200 if name.endswith("P99") else 100
        if name.startswith("read 1000"):
            yield name, 30
        if name.startswith("load"):
            yield name, 50_000


def _cached_budgets(cells: list[Cell]) -> Iterator[Budget]:
    for demand in DEMANDS:
        measured = ratio(find(cells, TRACED, demand), find(cells, "bare", demand), cpu)
        yield Budget(f"CPU of {TRACED} to the bare chain, cached, {demand} conn.", measured, 1.5, "x")
    for demand in (Demand(1), Demand(16)):
        measured = find(cells, "standalone", demand).median(cpu)
        yield Budget(f"standalone, cached: CPU a request, {demand} conn.", measured, 0.6, "ms")
    p50 = find(cells, "standalone", Demand(1)).median(lambda run: run.p50_ms)
    yield Budget("standalone, cached: P50, 1 conn.", p50, 1.0, "ms")


def _delayed_budgets(three: Cell) -> Iterator[Budget]:
    model = f"three processes, model of {DELAY_MS} ms, 64 conn."
    yield Budget(f"{model}: rate", three.median(lambda run: run.requests_per_second), 590, "req/s", least=True)
    yield Budget(f"{model}: P99", three.median(lambda run: run.p99_ms), 130, "ms")


def _start_budgets(medians: dict[str, float]) -> Iterator[Budget]:
    yield Budget("start, standalone offline", medians["standalone, offline"], 1.5, "s")
    for name in ("gateway_http", "router_service", "llm_gateway, Vertex"):
        yield Budget(f"start, {name}", medians[name], 3.0, "s")


def show(measured: Measured, console: Console) -> None:
    for title, header, rows in _tables(measured):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write(measured: Measured) -> Path:
    """Everything under bench/results, by date; the path without its ending."""
    RESULTS.mkdir(exist_ok=True)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    base = RESULTS / today
    lines = [f"# {today}", "", ", ".join(f"{name}: {value}" for name, value in measured.machine.items())]
    lines += [f"Rounds: {measured.rounds}, of {measured.seconds:g} s a cell.", ""]
    for title, header, rows in _tables(measured):
        lines += [f"## {title}", "", _markdown_row(header), _markdown_row(["---"] * len(header))]
        lines += [*map(_markdown_row, rows), ""]
    base.with_suffix(".md").write_text("\n".join(lines), "utf-8")
    base.with_suffix(".json").write_text(json.dumps(asdict(measured), indent=1, ensure_ascii=False) + "\n", "utf-8")
    plot(measured, base.with_suffix(".png"))
    return base


def _tables(measured: Measured) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of every table that has rows."""
    load_header = ["chain", "conn.", "req/s", "P50 ms", "P95 ms", "P99 ms", "failed", "unmeant"]
    cpu_header = ["chain", "conn.", "median (spread)", "by process", "to bare"]
    starts = [
        [name, f"{statistics.median(times):.2f}", f"{min(times):.2f} - {max(times):.2f}"]
        for name, times in measured.starts.items()
    ]
    tables = [
        ("Budgets", ["what", "measured", "budget", "held"], [budget.row() for budget in budgets(measured)]),
        ("Cached replies", load_header, [_load_row(cell) for cell in measured.cached]),
        ("Cached replies: CPU ms a request", cpu_header, _cpu_rows(measured.cached)),
        (
            f"A model of {DELAY_MS} ms, no two messages equal",
            load_header,
            [_load_row(cell) for cell in measured.delayed],
        ),
        (f"A model of {DELAY_MS} ms: CPU ms a request", cpu_header, _cpu_rows(measured.delayed)),
        ("Start to first healthy answer, s", ["what", "median", "spread"], starts),
        ("Memory after load, MB", ["chain", "by process"], _memory_rows(measured)),
        ("Single steps, µs", ["step", "median"], [[name, f"{value:.1f}"] for name, value in measured.steps.items()]),
    ]
    return (table for table in tables if table[2])


def _cpu_rows(cells: list[Cell]) -> list[list[str]]:
    return [_cpu_row(cell, find(cells, "bare", cell.demand)) for cell in cells]


def _memory_rows(measured: Measured) -> list[list[str]]:
    return [
        [f"{chain} ({kind})", ", ".join(f"{name} {megabytes:.0f}" for name, megabytes in parts.items())]
        for kind, memory in (("cached", measured.memory), ("model", measured.delayed_memory))
        for chain, parts in memory.items()
    ]


def _load_row(cell: Cell) -> list[str]:
    return [
        cell.chain,
        str(cell.demand),
        f"{cell.median(lambda run: run.requests_per_second):.0f}",
        f"{cell.median(lambda run: run.p50_ms):.2f}",
        f"{cell.median(lambda run: run.p95_ms):.1f}",
        f"{cell.median(lambda run: run.p99_ms):.1f}",
        str(sum(run.failed for run in cell.runs)),
        f"{max(run.unmeant for run in cell.runs):.1%}",
    ]


def _cpu_row(cell: Cell, bare: Cell) -> list[str]:
    low, high = cell.spread(cpu)
    return [
        cell.chain,
        str(cell.demand),
        f"{cell.median(cpu):.2f} ({low:.2f} - {high:.2f})",
        ", ".join(f"{name} {cpu_of(cell, name):.2f}" for name in cell.runs[0].cpu_ms),
        f"{ratio(cell, bare, cpu):.2f}",
    ]


def cpu_of(cell: Cell, process: str) -> float:
    """Of one process of the chain; 0 where it has none of that name."""
    return cell.median(lambda run: run.cpu_ms.get(process, 0.0))


def _markdown_row(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def plot(measured: Measured, path: Path) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    _plot_cpu(left, [cell for cell in measured.cached if cell.demand == Demand(16)])
    _plot_latency(right, measured)
    figure.savefig(path, dpi=110)


def _plot_cpu(axes: Any, cells: list[Cell]) -> None:
    names = [cell.chain for cell in cells]
    bottoms = [0.0] * len(cells)
    for part in ("http", "router", "llm", "ion"):
        heights = [cpu_of(cell, part) for cell in cells]
        axes.bar(names, heights, bottom=bottoms, label=part)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set(ylabel="CPU ms a request", title="Cached replies, 16 connections: CPU by process")
    axes.tick_params(axis="x", rotation=20)
    axes.legend()


def _plot_latency(axes: Any, measured: Measured) -> None:
    for chain in ("bare", "three", "standalone"):
        cells = [cell for cell in measured.cached if cell.chain == chain and not cell.demand.pause_ms]
        counts = [str(cell.demand) for cell in cells]
        line = axes.plot(
            counts, [cell.median(lambda run: run.p50_ms) for cell in cells], marker="o", label=f"{chain} P50"
        )
        tail = [cell.median(lambda run: run.p99_ms) for cell in cells]
        axes.plot(counts, tail, marker="x", linestyle="--", color=line[0].get_color(), label=f"{chain} P99")
    axes.set(yscale="log", xlabel="connections", ylabel="ms", title="Cached replies: latency")
    axes.legend()
