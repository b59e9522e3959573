"""`python -m bench`: measure, print, write under bench/results."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from bench import cells, micro, report
from bench.load import ensure_wrk


class Part(StrEnum):
    CACHED = "cached"
    DELAYED = "delayed"
    STARTS = "starts"
    STEPS = "steps"


def main(
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds of every cell.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Seconds of load a cell and round.")] = 4,
    quick: Annotated[bool, typer.Option("--quick", help="One round of one second: a look, not a result.")] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Measure this part; may be given again.")] = None,
) -> None:
    """Measure ION beside an empty chain; about eight minutes as it is. Only whole runs are written down."""
    console = Console()
    if quick:
        rounds, seconds = 1, 1
    parts = set(only or Part)
    if parts & {Part.CACHED, Part.DELAYED}:
        ensure_wrk()
    measured = report.Measured(rounds, seconds)
    if Part.CACHED in parts:
        measured.cached, measured.memory = cells.cached(rounds, seconds)
    if Part.DELAYED in parts:
        measured.delayed, measured.delayed_memory = cells.delayed(rounds, seconds)
    if Part.STARTS in parts:
        measured.starts = cells.starts(rounds)
    if Part.STEPS in parts:
        measured.steps = micro.measure()
    report.show(measured, console)
    if parts == set(Part) and not quick:
        written = report.write(measured)
        console.print(f"written: {written.with_suffix('.md').relative_to(report.RESULTS.parents[1])}, .json, .png")


if __name__ == "__main__":
    typer.run(main)
