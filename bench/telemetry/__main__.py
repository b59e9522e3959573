"""`python -m bench.telemetry`: measure, print, write under bench/results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.cells import Cell, Memory, ratio
from bench.load import Run, ensure_wrk
from bench.report import RESULTS, Budget, machine
from bench.telemetry import parts


@dataclass
class Measured:
    machine: dict[str, str]
    cells: list[Cell]
    memory: Memory

    def cell(self, shape: str, telemetry: str) -> Cell:
        return next(cell for cell in self.cells if cell.chain == f"{shape}, {telemetry}")


def main(
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds of every cell.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Seconds of load a cell and round.")] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="A look, not a result.")] = False,
) -> None:
    """Measure what telemetry costs; about four minutes as it is. Only whole runs are written down."""
    console = Console()
    ensure_wrk()
    before = machine()
    rounds, seconds = (2, 2) if quick else (rounds, seconds)
    measured = Measured(before, *parts.cached(rounds, seconds))
    for title, header, rows in _tables(measured):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if not quick:
        console.print(f"written: {_write(measured).relative_to(RESULTS.parents[1])}.md, .json")


def targets(measured: Measured) -> Iterator[Budget]:
    for shape in (parts.THREE, parts.STANDALONE):
        for telemetry, percent in ((parts.ONE, 20), (parts.ALL, 50)):
            added = 100 * (_cpu_ratio(measured, shape, telemetry) - 1)
            yield Budget(f"{shape}, {telemetry}: CPU added to {parts.OFF}", added, percent, "%")
    up = measured.cell(parts.THREE, parts.ALL)
    for telemetry in (parts.DOWN, parts.SLOW):
        away = measured.cell(parts.THREE, telemetry)
        # What two equal chains differ by on a machine that does other things too.
        yield Budget(f"{parts.THREE}, {telemetry}: P50 to receiver up", ratio(away, up, _p50), 1.1, "x")
        yield Budget(f"{parts.THREE}, {telemetry}: P99 to receiver up", ratio(away, up, _p99), 1.2, "x")


def _cpu_ratio(measured: Measured, shape: str, telemetry: str) -> float:
    return ratio(measured.cell(shape, telemetry), measured.cell(shape, parts.OFF), lambda run: run.cpu_ms_total)


def _p50(run: Run) -> float:
    return run.p50_ms


def _p99(run: Run) -> float:
    return run.p99_ms


def _tables(measured: Measured) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    yield "Targets", ["what", "measured", "target", "held"], [budget.row() for budget in targets(measured)]
    yield (
        "Cached chat, about 200 requests a second",
        ["chain, telemetry", "CPU ms (spread)", "to off", "P50 ms", "P99 ms", "req/s", "MB after"],
        [_row(measured, cell) for cell in measured.cells],
    )


def _row(measured: Measured, cell: Cell) -> list[str]:
    shape = cell.chain.partition(", ")[0]
    low, high = cell.spread(lambda run: run.cpu_ms_total)
    return [
        cell.chain,
        f"{cell.median(lambda run: run.cpu_ms_total):.3f} ({low:.3f}-{high:.3f})",
        f"{ratio(cell, measured.cell(shape, parts.OFF), lambda run: run.cpu_ms_total):.2f} x",
        f"{cell.median(_p50):.2f}",
        f"{cell.median(_p99):.2f}",
        f"{cell.median(lambda run: run.requests_per_second):.0f}",
        ", ".join(f"{process} {resident:.0f}" for process, resident in measured.memory[cell.chain].items()),
    ]


def _write(measured: Measured) -> Path:
    """Everything by date; the path without its ending."""
    base = RESULTS / f"telemetry-{datetime.now(UTC):%Y-%m-%d}"
    lines = [f"# What telemetry costs, {datetime.now(UTC):%Y-%m-%d}", ""]
    lines += [", ".join(f"{key}: {value}" for key, value in measured.machine.items()), ""]
    for title, header, rows in _tables(measured):
        table = [header, ["---"] * len(header), *rows]
        lines += [f"## {title}", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    base.with_suffix(".md").write_text("\n".join(lines), "utf-8")
    base.with_suffix(".json").write_text(json.dumps(_summary(measured), indent=1) + "\n", "utf-8")
    return base


def _summary(measured: Measured) -> dict[str, object]:
    return {
        "machine": measured.machine,
        "targets": [asdict(budget) for budget in targets(measured)],
        "cells": [asdict(cell) for cell in measured.cells],
        "memory_mb": measured.memory,
    }


if __name__ == "__main__":
    typer.run(main)
