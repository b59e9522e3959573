"""Results as tables and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.report import RESULTS
from bench.tail import limit, plot
from bench.tail.latency import CASES, PERCENTILES, Case, Cell
from bench.tail.loads import Load, Seconds
from bench.tail.measured import Measured, targets

Rows = list[list[str]]
Titled = tuple[str, list[str], Rows]
_SECONDS = ["P50 s", "P95 s", "P99 s"]


def show(measured: Measured, console: Console) -> None:
    for title, header, rows in _tables(measured):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write(measured: Measured) -> Path:
    """Everything under bench/results, by date, and the plot under docs too; the path without its ending."""
    base = RESULTS / f"tail-{datetime.now(UTC):%Y-%m-%d}"
    lines = [f"# Tail, {datetime.now(UTC):%Y-%m-%d}", "", ", ".join(f"{k}: {v}" for k, v in measured.machine.items())]
    lines += [f"Rounds: {measured.rounds}, of {measured.seconds:g} s a cell at 100 requests a second.", ""]
    for title, header, rows in _tables(measured):
        lines += [f"## {title}", "", _markdown(header), _markdown(["---"] * len(header)), *map(_markdown, rows), ""]
    base.with_suffix(".md").write_text("\n".join(lines), "utf-8")
    base.with_suffix(".json").write_text(json.dumps(summary(measured), indent=1) + "\n", "utf-8")
    for path in (base.with_suffix(".png"), RESULTS.parents[1] / "docs/tail.png"):
        plot.draw(measured.latency, path)
    return base


def _markdown(row: list[str]) -> str:
    return f"| {' | '.join(row)} |"


def _tables(measured: Measured) -> Iterator[Titled]:
    """Title, header and rows of every table that has rows."""
    tables: list[Titled] = [
        ("Targets", ["what", "measured", "target", "held"], [budget.row() for budget in targets(measured)]),
        ("Time to the whole reply", _latency_header(), list(_latency_rows(measured.latency))),
        ("Time to the first text of a stream", _latency_header()[:6], list(_first_rows(measured.latency))),
        ("Repeats alone", ["cache", "requests", "failed", "P50 ms", "P95 ms", "P99 ms"], _repeat_rows(measured)),
        ("One of three locations", ["it is", "requests", "answered", *_SECONDS], _outage_rows(measured)),
        ("64 callers, a model of 100 ms", ["who", "req/s (spread)"], _concurrency_rows(measured)),
        ("Memory", ["distinct replies", "resident MB", "near entries"], _memory_rows(measured)),
        ("Callers at once", _FLOOD_HEADER, _flood_rows(measured)),
        ("Cancelling: end of the model call", ["method", "times", "median ms", "most ms"], _cancelling_rows(measured)),
        ("Equal requests on two replicas at once", _COALESCING_HEADER, _coalescing_rows(measured)),
    ]
    return (table for table in tables if table[2])


def _latency_header() -> list[str]:
    return [
        "messages",
        "req/s",
        "who",
        *_SECONDS,
        "P99 by round",
        "extra calls",
        "hedges",
        "won",
        "denied",
        "retries",
        "failed",
    ]


def _latency_rows(cells: list[Cell]) -> Iterator[list[str]]:
    for cell in cells:
        low, high = cell.spread(99)
        calls = [str(cell.counted[name]) for name in ("hedges", "hedges_won", "hedges_denied", "retries")]
        more = [f"{low:.2f} - {high:.2f}", f"{cell.extra:.2%}", *calls, str(cell.load.failed)]
        yield [cell.case, str(cell.rate), cell.who, *_in_seconds(cell.percentiles()), *more]
        if cell.who == "ours":
            yield [*_limit_row(cell, "seconds"), "", "10.00%", *[""] * 5]


def _first_rows(cells: list[Cell]) -> Iterator[list[str]]:
    for cell in cells:
        if len(cell.load.first):
            yield [cell.case, str(cell.rate), cell.who, *_in_seconds(cell.percentiles("first"))]
            if cell.who == "ours":
                yield _limit_row(cell, "first")


def _limit_row(cell: Cell, of: str) -> list[str]:
    values = np.percentile(limit_of(cell.case, of), PERCENTILES)
    return [cell.case, str(cell.rate), "limit", *_in_seconds(values)]


def limit_of(case_name: str, of: str = "seconds") -> Seconds:
    """What no single hedge can pass."""
    case: Case = next(case for case in CASES if case.name == case_name)
    streams = case.method == "StreamGenerate"
    simulated = limit.simulate(case.first_token_share, case.repeat_share, first_text_wins=streams)
    return simulated.first if of == "first" else simulated.whole


def _in_seconds(values: Any) -> list[str]:
    return [f"{value:.2f}" for value in values]


def _repeat_rows(measured: Measured) -> Rows:
    return [
        [name, str(len(load)), str(load.failed), *(f"{1000 * load.percentile(p):.1f}" for p in PERCENTILES)]
        for name, load in measured.repeats.items()
    ]


def _outage_rows(measured: Measured) -> Rows:
    return [
        [name, str(len(load)), f"{load.count('OK') / len(load):.2%}", *_in_seconds(map(load.percentile, PERCENTILES))]
        for name, runs in measured.outages.items()
        for load in runs
    ]


def _concurrency_rows(measured: Measured) -> Rows:
    return [
        [name, f"{statistics.median(rates):.0f} ({min(rates):.0f} - {max(rates):.0f})"]
        for name, rates in measured.concurrency.items()
    ]


def _memory_rows(measured: Measured) -> Rows:
    return [[str(entry.replies), f"{entry.resident_mb:.0f}", str(entry.near_entries)] for entry in measured.memory]


_FLOOD_HEADER = ["model", "callers", "answered", "shed", "other", "all done, s", "MB before", "MB peak", "MB after"]


def _flood_rows(measured: Measured) -> Rows:
    return [
        [
            *(name, str(flood.callers), str(flood.answered), str(flood.shed)),
            ", ".join(f"{count} {outcome}" for outcome, count in flood.other.items()) or "0",
            *(f"{flood.seconds:.1f}", f"{flood.before_mb:.0f}", f"{flood.peak_mb:.0f}", f"{flood.after_mb:.0f}"),
        ]
        for name, flood in measured.floods.items()
    ]


def _cancelling_rows(measured: Measured) -> Rows:
    return [
        [method, str(len(took)), f"{statistics.median(took):.1f}", f"{max(took):.1f}"]
        for method, took in measured.cancelling.items()
    ]


_COALESCING_HEADER = ["pairs", "model calls a pair", "follower later, median ms", "most ms", "alone ms", "led ms"]


def _coalescing_rows(measured: Measured) -> Rows:
    found = measured.coalescing
    if found is None:
        return []
    later = (statistics.median(found.added_ms), max(found.added_ms), found.alone_ms, found.led_ms)
    return [[str(found.pairs), f"{found.model_calls_a_pair:.2f}", *(f"{value:.1f}" for value in later)]]


def summary(measured: Measured) -> dict[str, Any]:
    """For JSON: of every load its percentiles."""
    return {
        "machine": measured.machine,
        "rounds": measured.rounds,
        "seconds": measured.seconds,
        "targets": [asdict(budget) | {"held": budget.held} for budget in targets(measured)],
        "latency": [_summary_of(cell) for cell in measured.latency],
        "repeats": {name: _percentiles(load) for name, load in measured.repeats.items()},
        "outages": {name: [_percentiles(load) for load in runs] for name, runs in measured.outages.items()},
        "concurrency": measured.concurrency,
        "memory": [asdict(entry) for entry in measured.memory],
        "floods": {name: asdict(flood) for name, flood in measured.floods.items()},
        "cancelling_ms": measured.cancelling,
        "coalescing": asdict(measured.coalescing) if measured.coalescing else None,
    }


def _summary_of(cell: Cell) -> dict[str, Any]:
    return {
        "case": cell.case,
        "rate": cell.rate,
        "who": cell.who,
        "model_calls": cell.model_calls,
        "first_calls": cell.first_calls,
        "extra": cell.extra,
        "counted": cell.counted,
        "rounds": [_percentiles(run) for run in cell.runs],
        "all": _percentiles(cell.load),
    }


def _percentiles(load: Load) -> dict[str, Any]:
    values: dict[str, Any] = {"requests": len(load), "failed": load.failed}
    for name, of in (("seconds", load.seconds), ("first", load.first)):
        if len(of):
            percentiles = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9)
            values[name] = {f"P{p:g}": round(float(np.percentile(of, p)), 5) for p in percentiles}
    return values
