"""`python -m bench.tail`: measure, print, write under bench/results and docs."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.progress import Progress

from bench.load import ensure_wrk
from bench.report import RESULTS
from bench.tail import capacity, latency, outages, promptness, repeats, report
from bench.tail.measured import Measured

# At 300 requests a second fewer seconds make as many requests.
SHORTER: Final = 0.6


class Part(StrEnum):
    LATENCY = "latency"
    REPEATS = "repeats"
    OUTAGES = "outages"
    CONCURRENCY = "concurrency"
    MEMORY = "memory"
    FLOOD = "flood"
    CANCELLING = "cancelling"
    COALESCING = "coalescing"


class Bench:
    """One run: how much of everything, and what it finds."""

    def __init__(self, rounds: int, seconds: float, *, quick: bool) -> None:
        self._rounds = rounds
        self._seconds = seconds
        self._quick = quick
        self.measured = Measured(rounds, seconds)

    def latency(self) -> None:
        effort = latency.Effort(self._rounds, {100: self._seconds, 300: SHORTER * self._seconds})
        if self._quick:
            effort = latency.Effort(1, {100: self._seconds})
        with Progress(transient=True) as progress:
            task = progress.add_task("latency", total=latency.runs_of(effort))
            self.measured.latency = latency.measure(effort, lambda: progress.advance(task))

    def repeats(self) -> None:
        self.measured.repeats = repeats.measure(2 if self._quick else 10, (100, 300))

    def outages(self) -> None:
        rounds = 1
        seconds = 4.0 if self._quick else self._seconds
        with Progress(transient=True) as progress:
            task = progress.add_task("outages", total=rounds * len(outages.OUTAGES))
            self.measured.outages = outages.measure(rounds, seconds, lambda: progress.advance(task))

    def concurrency(self) -> None:
        ensure_wrk()
        self.measured.concurrency = capacity.concurrency(1 if self._quick else 3, 2 if self._quick else 5)

    def memory(self) -> None:
        with Progress(transient=True) as progress:
            task = progress.add_task("memory", total=capacity.MEMORY_STEPS)
            replies = 2_000 if self._quick else 100_000
            self.measured.memory = capacity.memory(replies, lambda: progress.advance(task))

    def flood(self) -> None:
        callers = 2_000 if self._quick else 10_000
        self.measured.floods = {
            f"model of {seconds:g} s": capacity.flood(callers, seconds) for seconds in capacity.FLOOD_DELAYS_SECONDS
        }

    def cancelling(self) -> None:
        self.measured.cancelling = promptness.cancelling(10 if self._quick else 100)

    def coalescing(self) -> None:
        self.measured.coalescing = promptness.coalescing(10 if self._quick else 100, capacity.DELAY_SECONDS)

    def part(self, part: Part) -> Callable[[], None]:
        found: Callable[[], None] = getattr(self, part.value)
        return found


def main(
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds of the latency cells.")] = 2,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="Seconds of load a cell and round at 100 req/s.")] = 36,
    quick: Annotated[bool, typer.Option("--quick", help="A look, not a result: a few minutes.")] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Measure this part; may be given again.")] = None,
) -> None:
    """Measure the tail of latency, before and ours, and what the gateway stands; about 25 minutes as it is. Only whole
    runs are written down."""
    console = Console()
    bench = Bench(1 if quick else rounds, 4.0 if quick else seconds, quick=quick)
    parts = [part for part in Part if not only or part in only]
    try:
        for part in parts:
            console.print(f"measuring {part} ...", style="dim")
            bench.part(part)()
    finally:
        report.show(bench.measured, console)
    if parts == list(Part) and not quick:
        written = report.write(bench.measured)
        console.print(f"written: {written.relative_to(RESULTS.parents[1])}.md, .json, .png and docs/tail.png")


if __name__ == "__main__":
    typer.run(main)
