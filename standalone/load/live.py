"""A run from its first call to its report."""

from __future__ import annotations

import asyncio
from typing import Final

from rich.live import Live

from standalone import show
from standalone.load.callers import OpenCalled
from standalone.load.plan import Plan
from standalone.load.report import table
from standalone.load.run import Run

REFRESH_SECONDS: Final = 0.25


async def load(open_called: OpenCalled, plan: Plan, title: str, *, session: bool, as_json: bool) -> bool:
    """Run the plan with a table that moves, and print what came of it, an interrupted one's too. False where a call
    failed, and where none was answered."""
    async with open_called() as called:
        run = Run(called, plan, session=session)
        try:
            await _watched(run, title)
        finally:
            _report(run, title, as_json=as_json)
    return bool(run.tally.answered) and not run.tally.failed


async def _watched(run: Run, title: str) -> None:
    if not show.err.is_terminal:
        await run.go()
        return
    with Live(console=show.err, auto_refresh=False, transient=True) as live:
        watching = asyncio.create_task(_watch(run, live, title))
        try:
            await run.go()
        finally:
            watching.cancel()


async def _watch(run: Run, live: Live, title: str) -> None:
    while True:
        run.tick()
        live.update(table(title, run.tally.summary(run.seconds)), refresh=True)
        await asyncio.sleep(REFRESH_SECONDS)


def _report(run: Run, title: str, *, as_json: bool) -> None:
    summary = run.tally.summary(run.seconds)
    if as_json:
        show.as_json_line({"target": title} | summary)
    else:
        show.out.print(table(title, summary))
