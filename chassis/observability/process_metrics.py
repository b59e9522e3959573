"""What the process uses, and how late its event loop is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis import telemetry
from chassis.observability import metrics

LAG_INTERVAL_SECONDS: Final = 0.5


def observe() -> None:
    """From now on, where metrics are on."""
    # Imported where it is used: 20 ms of the start.
    from psutil import Process

    process = Process()
    started_at = time.monotonic() - (time.time() - process.create_time())

    def cpu() -> list[metrics.Observed]:
        used = process.cpu_times()
        return [(used.user, {telemetry.CPU_MODE: "user"}), (used.system, {telemetry.CPU_MODE: "system"})]

    metrics.observe(telemetry.PROCESS_CPU, cpu)
    metrics.observe(telemetry.PROCESS_MEMORY, lambda: [(process.memory_info().rss, {})])
    metrics.observe(telemetry.PROCESS_THREADS, lambda: [(process.num_threads(), {})])
    metrics.observe(telemetry.PROCESS_FILES, lambda: [(process.num_fds(), {})])
    metrics.observe(telemetry.PROCESS_UPTIME, lambda: [(time.monotonic() - started_at, {})])


@asynccontextmanager
async def measuring_lag() -> AsyncIterator[None]:
    """Of the event loop that runs the block. Nothing where metrics are off."""
    if not metrics.is_on():
        yield
        return
    asking = asyncio.create_task(_ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.wait([asking])


async def _ask() -> None:
    while True:
        asked_at = time.perf_counter()
        await asyncio.sleep(LAG_INTERVAL_SECONDS)
        # uvloop counts whole milliseconds, and may be early by one.
        metrics.record(telemetry.LOOP_LAG, max(0.0, time.perf_counter() - asked_at - LAG_INTERVAL_SECONDS))
