"""Slow work beside the event loop, which goes on meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], Coroutine[object, object, T]]) -> T:
    """What `work` returns, run on an event loop of its own in a daemon thread, so that not even a stop of this process
    waits for it. Cancelling this cancels it, and does not wait for its end."""
    thread_loop = asyncio.new_event_loop()
    answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    task = thread_loop.create_task(work())
    task.add_done_callback(lambda _: _tell(answer, task))
    threading.Thread(target=_run, args=(thread_loop, task), daemon=True, name="aside").start()
    try:
        return await answer
    finally:
        with suppress(RuntimeError):  # it has ended, and its loop is closed
            thread_loop.call_soon_threadsafe(task.cancel)


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[T]) -> None:
    asyncio.set_event_loop(loop)
    try:
        with suppress(BaseException):  # whoever asked is told
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _tell(answer: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    with suppress(RuntimeError):  # who asked has ended before
        answer.get_loop().call_soon_threadsafe(_copy, answer, task)


def _copy(answer: asyncio.Future[T], task: asyncio.Task[T]) -> None:
    if answer.done():
        return
    if task.cancelled():
        answer.cancel()
    elif error := task.exception():
        answer.set_exception(error)
    else:
        answer.set_result(task.result())
