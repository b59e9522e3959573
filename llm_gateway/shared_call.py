"""A call that several wait for, each within a deadline of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from llm_gateway.generation import ModelUnavailable

T = TypeVar("T")


class SharedCall(Generic[T]):
    """Under way for as long as anybody waits for it: whoever leaves last cancels it. One that nobody has waited for yet
    runs on."""

    def __init__(self, call: Callable[[], Awaitable[T]], on_over: Callable[[], None]) -> None:
        """`on_over`: it can be joined no more, since it has ended or is being cancelled. May be called twice."""
        self._on_over = on_over
        self._waiters = 0
        self._task = asyncio.get_running_loop().create_task(_settled(call))
        self._task.add_done_callback(lambda _: on_over())

    @property
    def is_over(self) -> bool:
        return self._task.done()

    async def join(self, deadline: Deadline) -> T:
        """Raises what the call raised, ModelUnavailable where something below has cancelled it, or DeadlineExceeded."""
        with self.waiting():
            await self.ends_within(deadline.remaining_seconds())
            return self.result()

    async def ends_within(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        await asyncio.wait((self._task,), timeout=seconds)

    async def cancel(self) -> None:
        """Whoever waits has ModelUnavailable."""
        self._task.cancel()
        await asyncio.wait((self._task,))

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Whoever is inside waits for it."""
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
            if not self._waiters and not self._task.done():
                self._on_over()
                self._task.cancel()

    def result(self) -> T:
        """As `join` says; DeadlineExceeded while it is not over."""
        if not self._task.done():
            raise DeadlineExceeded
        if self._task.cancelled():
            raise ModelUnavailable  # those who wait were not cancelled, and need an answer
        outcome = self._task.result()
        if isinstance(outcome, IonError):
            raise outcome.with_traceback(None)  # shared by all who wait: each starts a traceback of its own
        return outcome


async def _settled(call: Callable[[], Awaitable[T]]) -> T | IonError:
    """A failure is a result: nobody may be left to hear of it."""
    try:
        return await call()
    except IonError as error:
        return error
