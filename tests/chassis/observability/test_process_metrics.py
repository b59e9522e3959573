"""What the process uses is told as it is."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest
from psutil import Process

from chassis import telemetry
from chassis.observability import process_metrics
from tests.observed import measured


def test_cpu_time():
    with measured() as seen:
        process_metrics.observe()
        for _ in range(2):
            told = {point.attributes[telemetry.CPU_MODE]: point.value for point in seen.points(telemetry.PROCESS_CPU)}
            used = os.times()
            assert told == {"user": pytest.approx(used.user, abs=0.05), "system": pytest.approx(used.system, abs=0.05)}
            while os.times().user < used.user + 0.1:
                sum(range(10_000))


def test_memory_and_uptime():
    with measured() as seen:
        process_metrics.observe()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        assert seen.value(telemetry.PROCESS_MEMORY) == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.1)
        age = time.time() - Process().create_time()
        assert seen.value(telemetry.PROCESS_UPTIME) == pytest.approx(age, abs=0.5)


def test_threads_and_files():
    with measured() as seen:
        process_metrics.observe()
        threads, files = seen.value(telemetry.PROCESS_THREADS), seen.value(telemetry.PROCESS_FILES)
        end = threading.Event()
        more = threading.Thread(target=end.wait, daemon=True)
        more.start()
        with Path(__file__).open(), Path(__file__).open():
            assert seen.value(telemetry.PROCESS_THREADS) == threads + 1
            assert seen.value(telemetry.PROCESS_FILES) == files + 2
        end.set()
        more.join()


async def test_an_event_loop_that_is_kept_busy_is_late(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process_metrics, "LAG_INTERVAL_SECONDS", 0.001)
    with measured() as seen:
        async with process_metrics.measuring_lag():
            while not seen.value(telemetry.LOOP_LAG):
                await asyncio.sleep(0)
            time.sleep(0.1)  # noqa: ASYNC251 - what is measured
            measured_so_far = seen.value(telemetry.LOOP_LAG)
            while seen.value(telemetry.LOOP_LAG) == measured_so_far:
                await asyncio.sleep(0)
            (lag,) = seen.points(telemetry.LOOP_LAG)
            assert 0.08 < lag.sum < 5
            assert sum(lag.bucket_counts[lag.explicit_bounds.index(0.05) + 1 :]) == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nobody_asks_the_event_loop_while_metrics_are_off():
    async with process_metrics.measuring_lag():
        assert asyncio.all_tasks() == {asyncio.current_task()}
