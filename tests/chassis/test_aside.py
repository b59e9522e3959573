"""Work beside the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from chassis.aside import aside


async def test_runs_in_another_thread_while_the_loop_goes_on() -> None:
    goes_on = threading.Event()
    here = threading.get_ident()

    async def work() -> bool:
        return goes_on.wait(20) and threading.get_ident() != here

    working = asyncio.create_task(aside(work))
    await asyncio.sleep(0)
    goes_on.set()
    assert await working


async def test_its_error_is_raised_here() -> None:
    async def work() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await aside(work)


async def test_it_is_cancelled_with_who_asked_for_it() -> None:
    started, cancelled = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    working = asyncio.create_task(aside(work))
    assert await asyncio.to_thread(started.wait, 20)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await asyncio.to_thread(cancelled.wait, 20)


async def test_who_is_cancelled_does_not_wait_for_its_end() -> None:
    started, may_end = threading.Event(), threading.Event()

    async def work() -> None:
        started.set()
        may_end.wait(20)

    working = asyncio.create_task(aside(work))
    assert await asyncio.to_thread(started.wait, 20)
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    may_end.set()
