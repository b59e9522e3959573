"""Results as tables, as JSON and as a plot."""

from __future__ import annotations

import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from bench.cells import DELAY_MS, Cell, ratio
from bench.load import Run

RESULTS = Path(__file__).with_name("results")


@dataclass
class Measured:
    """All that one call of the bench has found."""

    cached: list[Cell]
    delayed: list[Cell]
    memory: dict[str, dict[str, float]]
    delayed_memory: dict[str, dict[str, float]]
    starts: dict[str, list[float]]
    micro: dict[str, float]


def find(cells: list[Cell], chain: str, connections: int) -> Cell:
    return next(cell for cell in cells if (cell.chain, cell.connections) == (chain, connections))


def cpu(run: Run) -> float:
    return run.cpu_ms_total


def budgets(measured: Measured) -> list[tuple[str, str, str, bool]]:
    """What, measured, budget, held."""
    rows: list[tuple[str, str, str, bool]] = []

    def add(what: str, value: float, limit: float, unit: str, *, least: bool = False) -> None:
        sign = ">=" if least else "<="
        held = value >= limit if least else value <= limit
        rows.append((what, f"{value:.3g} {unit}".strip(), f"{sign} {limit:g} {unit}".strip(), held))

    for language in ("English", "Korean"):
        add(
            f"analysis + routing of one message, {language}",
            measured.micro[f"analysis + routing, {language}"],
            100,
            "µs",
        )
    add("/chat decoded, validated, encoded", measured.micro["/chat decoded, validated, encoded"], 100, "µs")
    for connections in (1, 16, 64):
        bare = find(measured.cached, "bare", connections)
        ours = find(measured.cached, "three, traced 1 %", connections)
        add(
            f"CPU of three processes to the bare chain, traced 1 %, {connections} conn.",
            ratio(ours, bare, cpu),
            1.5,
            "x",
        )
    alone = find(measured.cached, "standalone", 1)
    add("standalone, cached: CPU a request, 1 conn.", alone.median(cpu), 0.6, "ms")
    add("standalone, cached: P50, 1 conn.", alone.median(lambda run: run.p50_ms), 1.0, "ms")
    three = find(measured.delayed, "three", 64)
    add(
        f"three processes, model of {DELAY_MS} ms: req/s",
        three.median(lambda run: run.requests_per_second),
        590,
        "",
        least=True,
    )
    add(f"three processes, model of {DELAY_MS} ms: P99", three.median(lambda run: run.p99_ms), 130, "ms")
    add(
        "start to first healthy answer, standalone offline",
        statistics.median(measured.starts["standalone, offline"]),
        1.5,
        "s",
    )
    add("start of all three with Vertex", statistics.median(measured.starts["three, Vertex"]), 3.0, "s")
    for name, limit in (("http", 100), ("router", 100), ("llm", 100)):
        add(f"memory after load, {name}", measured.memory["three"][name], limit, "MB")
    add("memory after load, llm with the Vertex client", measured.delayed_memory["three"]["llm"], 180, "MB")
    return rows


def write(measured: Measured, console: Console) -> Path:
    """Print everything, and write it under bench/results; the path without its ending."""
    RESULTS.mkdir(exist_ok=True)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    base = RESULTS / today
    lines = [f"# {today}: {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", ""]
    for title, header, rows in _tables(measured):
        _print(console, title, header, rows)
        lines += [f"## {title}", "", _markdown_row(header), _markdown_row(["---"] * len(header))]
        lines += [*map(_markdown_row, rows), ""]
    base.with_suffix(".md").write_text("\n".join(lines), "utf-8")
    base.with_suffix(".json").write_text(json.dumps(asdict(measured), indent=1, ensure_ascii=False) + "\n", "utf-8")
    plot(measured, base.with_suffix(".png"))
    return base


def _tables(measured: Measured) -> list[tuple[str, list[str], list[list[str]]]]:
    load_header = ["chain", "conn.", "req/s", "P50 ms", "P99 ms", "CPU ms a request", "of it", "CPU to bare", "failed"]
    budget_rows = [[what, value, limit, "yes" if held else "NO"] for what, value, limit, held in budgets(measured)]
    memory = [
        [f"{chain} ({kind})", ", ".join(f"{name} {mb:.0f}" for name, mb in parts.items())]
        for kind, memories in (("cached", measured.memory), ("model", measured.delayed_memory))
        for chain, parts in memories.items()
    ]
    starts = [
        [name, f"{statistics.median(times):.2f}", f"{min(times):.2f} - {max(times):.2f}"]
        for name, times in measured.starts.items()
    ]
    return [
        ("Budgets", ["what", "measured", "budget", "held"], budget_rows),
        ("Cached replies", load_header, _load_rows(measured.cached)),
        (f"A model of {DELAY_MS} ms, no two messages equal", load_header, _load_rows(measured.delayed)),
        ("Start to first healthy answer, s", ["what", "median", "spread"], starts),
        ("Memory after load, MB", ["chain", "by process"], memory),
        ("Single steps, µs", ["step", "median"], [[name, f"{value:.1f}"] for name, value in measured.micro.items()]),
    ]


def _load_rows(cells: list[Cell]) -> list[list[str]]:
    return [_load_row(cell, find(cells, "bare", cell.connections)) for cell in cells]


def _load_row(cell: Cell, bare: Cell) -> list[str]:
    low, high = cell.spread(cpu)
    names = cell.runs[0].cpu_ms
    parts = ", ".join(f"{name} {cell.median(lambda run, name=name: run.cpu_ms[name]):.2f}" for name in names)
    return [
        cell.chain,
        str(cell.connections),
        f"{cell.median(lambda run: run.requests_per_second):.0f}",
        f"{cell.median(lambda run: run.p50_ms):.2f}",
        f"{cell.median(lambda run: run.p99_ms):.1f}",
        f"{cell.median(cpu):.2f} ({low:.2f} - {high:.2f})",
        parts,
        f"{ratio(cell, bare, cpu):.2f}",
        str(sum(run.failed for run in cell.runs)),
    ]


def _print(console: Console, title: str, header: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for column in header:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _markdown_row(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def plot(measured: Measured, path: Path) -> None:
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8), layout="constrained")
    _plot_cpu(left, [cell for cell in measured.cached if cell.connections == 16])
    _plot_latency(right, measured)
    figure.savefig(path, dpi=110)


def _plot_cpu(axes: Any, cells: list[Cell]) -> None:
    names = [cell.chain for cell in cells]
    bottoms = [0.0] * len(cells)
    for part in ("http", "router", "llm", "ion"):
        heights = [cell.median(lambda run, part=part: run.cpu_ms.get(part, 0.0)) for cell in cells]
        axes.bar(names, heights, bottom=bottoms, label=part)
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set(ylabel="CPU ms a request", title="Cached replies, 16 connections: CPU by process")
    axes.tick_params(axis="x", rotation=20)
    axes.legend()


def _plot_latency(axes: Any, measured: Measured) -> None:
    for chain in ("bare", "three", "standalone"):
        cells = [cell for cell in measured.cached if cell.chain == chain]
        counts = [str(cell.connections) for cell in cells]
        line = axes.plot(
            counts, [cell.median(lambda run: run.p50_ms) for cell in cells], marker="o", label=f"{chain} P50"
        )
        tail = [cell.median(lambda run: run.p99_ms) for cell in cells]
        axes.plot(counts, tail, marker="x", linestyle="--", color=line[0].get_color(), label=f"{chain} P99")
    axes.set(yscale="log", xlabel="connections", ylabel="ms", title="Cached replies: latency")
    axes.legend()
