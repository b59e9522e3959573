"""`python -m bench.front`: measure, print, write under bench/results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from bench.cells import Cell
from bench.front import parts
from bench.load import ensure_wrk
from bench.report import RESULTS, Budget, machine


class Part(StrEnum):
    CACHED = "cached"
    CONVERSATIONS = "conversations"
    FIRST_TOKENS = "first-tokens"
    STREAMS = "streams"


@dataclass
class Measured:
    """All that one call has found; what it was not asked for is empty."""

    cached: list[Cell] = field(default_factory=list)
    conversations: dict[str, parts.Talk] = field(default_factory=dict)
    first_tokens: parts.FirstTokens | None = None
    streams: dict[str, parts.OpenStreams] = field(default_factory=dict)
    machine: dict[str, str] = field(default_factory=machine)


def main(
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds of every cell.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Seconds of load a cell and round.")] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="A look, not a result.")] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Measure this part; may be given again.")] = None,
) -> None:
    """Measure what the front door costs; about five minutes as it is. Only whole runs are written down."""
    console = Console()
    rounds, seconds = (1, 1) if quick else (rounds, seconds)
    wanted, measured = set(only or Part), Measured()
    if Part.CACHED in wanted:
        ensure_wrk()
        measured.cached = parts.cached(rounds, seconds)
    if Part.CONVERSATIONS in wanted:
        measured.conversations = parts.conversations(rounds, 4 if quick else 20)
    if Part.FIRST_TOKENS in wanted:
        measured.first_tokens = parts.first_tokens(10 if quick else 200)
    if Part.STREAMS in wanted:
        measured.streams = parts.open_streams()
    _show(measured, console)
    if wanted == set(Part) and not quick:
        console.print(f"written: {_write(measured).relative_to(RESULTS.parents[1])}.md, .json")


def targets(measured: Measured) -> Iterator[Budget]:
    """Every target for which there is a measurement."""
    for cell in measured.cached:
        if cell.chain == "standalone":
            what = f"cached /chat, standalone, {cell.demand} conn.: CPU"
            yield Budget(what, cell.median(lambda run: run.cpu_ms_total), 0.6, "ms")
    if measured.conversations:
        without, with_session = measured.conversations.values()
        added = with_session.percentile(99) - without.percentile(99)
        yield Budget(f"session on PostgreSQL, {parts.CALLERS} callers: P99 added", added, 15, "ms")
        lost = with_session.history.total() - with_session.history["stored"]
        yield Budget("turns that were not stored", lost, 0, "")
    if measured.first_tokens:
        direct = statistics.median(measured.first_tokens.direct)
        for name, milliseconds in measured.first_tokens.ours.items():
            added = statistics.median(milliseconds) - direct
            yield Budget(f"first streamed text, {name}: added, median", added, 5, "ms")
    for shape, streams in measured.streams.items():
        for process, resident_mb in streams.resident_mb.items():
            yield Budget(f"{streams.streams} open streams, {shape}: resident, {process}", resident_mb, 250, "MB")


def _tables(measured: Measured) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    yield "Targets", ["what", "measured", "target", "held"], [budget.row() for budget in targets(measured)]
    yield (
        "Cached chat",
        ["chain", "connections", "CPU ms (spread)", "P50 ms", "P99 ms", "req/s"],
        [_cached_row(cell) for cell in measured.cached],
    )
    yield (
        "Conversations",
        ["64 callers", "chats", "P50 ms", "P95 ms", "P99 ms", "CPU ms a chat", "history"],
        [_talk_row(name, talk) for name, talk in measured.conversations.items()],
    )
    if measured.first_tokens:
        everybody = {"the model itself": measured.first_tokens.direct} | measured.first_tokens.ours
        rows = [_first_row(name, milliseconds) for name, milliseconds in everybody.items()]
        yield "First text of a stream", ["asked", "streams", "P50 ms", "P95 ms", "P99 ms"], rows
    rows = [
        [shape, process, str(streams.streams), f"{streams.before_mb[process]:.0f}", f"{resident_mb:.0f}"]
        for shape, streams in measured.streams.items()
        for process, resident_mb in streams.resident_mb.items()
    ]
    yield "Open streams", ["shape", "process", "streams", "MB before", "MB while open"], rows


def _cached_row(cell: Cell) -> list[str]:
    low, high = cell.spread(lambda run: run.cpu_ms_total)
    return [
        cell.chain,
        str(cell.demand),
        f"{cell.median(lambda run: run.cpu_ms_total):.3f} ({low:.3f}-{high:.3f})",
        f"{cell.median(lambda run: run.p50_ms):.2f}",
        f"{cell.median(lambda run: run.p99_ms):.2f}",
        f"{cell.median(lambda run: run.requests_per_second):.0f}",
    ]


def _talk_row(name: str, talk: parts.Talk) -> list[str]:
    percentiles = [f"{talk.percentile(percent):.1f}" for percent in (50, 95, 99)]
    history = ", ".join(f"{status}: {count}" for status, count in talk.history.items())
    return [name, str(len(talk.seconds)), *percentiles, f"{statistics.median(talk.cpu_ms):.2f}", history]


def _first_row(name: str, milliseconds: list[float]) -> list[str]:
    cuts = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return [name, str(len(milliseconds)), *(f"{cuts[percent - 1]:.1f}" for percent in (50, 95, 99))]


def _show(measured: Measured, console: Console) -> None:
    for title, header, rows in _tables(measured):
        table = Table(*header, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        if rows:
            console.print(table)


def _write(measured: Measured) -> Path:
    """Everything by date; the path without its ending."""
    base = RESULTS / f"front-{datetime.now(UTC):%Y-%m-%d}"
    lines = [f"# The front door, {datetime.now(UTC):%Y-%m-%d}", ""]
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
        "tables": {title: [header, *rows] for title, header, rows in _tables(measured)},
    }


if __name__ == "__main__":
    typer.run(main)
