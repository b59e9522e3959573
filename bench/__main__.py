"""`python -m bench`: measure, print, write under bench/results."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from bench import cells, micro, report
from bench.load import ensure_wrk


def main(
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds of every cell.")] = 5,
    seconds: Annotated[float, typer.Option(min=1, max=60, help="Seconds of load a cell and round.")] = 3,
    steps: Annotated[bool, typer.Option("--steps", help="Only the single steps.")] = False,
) -> None:
    """Measure ION beside an empty chain; about seven minutes as it is."""
    console = Console()
    if steps:
        for name, microseconds in micro.measure().items():
            console.print(f"{microseconds:8.1f} µs  {name}", highlight=False)
        return
    ensure_wrk()
    cached, memory = cells.cached(rounds, seconds)
    delayed, delayed_memory = cells.delayed(rounds, seconds + 1)
    measured = report.Measured(cached, delayed, memory, delayed_memory, cells.starts(rounds), micro.measure())
    written = report.write(measured, console)
    console.print(f"written: {written.with_suffix('.md').relative_to(report.RESULTS.parents[1])}, .json, .png")


if __name__ == "__main__":
    typer.run(main)
