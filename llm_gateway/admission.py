"""How many requests ask a model at once, who waits for a turn, and who is told at once to come again later."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from llm_gateway.generation import Overloaded

LEAST_RETRY_AFTER_SECONDS: Final = 0.1
MOST_RETRY_AFTER_SECONDS: Final = 30.0
_ASSUMED_SERVICE_SECONDS: Final = 1.0  # until one is known
_LEAST_WEIGHT: Final = 0.05  # of one service time in the mean: the last 20 or so count


class Admission:
    """At most `max_running` at once and `max_queued` in the queue, which is first come, first served."""

    def __init__(self, max_running: int, max_queued: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._max_running = max_running
        self._max_queued = max_queued
        self._now = now
        self._queue: OrderedDict[_Waiter, None] = OrderedDict()
        self._mean_seconds = _ASSUMED_SERVICE_SECONDS
        self._served = 0
        self.running = 0
        self.shed = 0  # since the start

    @property
    def queued(self) -> int:
        return len(self._queue)

    def admit(self, deadline: Deadline) -> Admitted:
        """`async with admission.admit(deadline) as queued_seconds:` holds one of the places.

        Raises Overloaded at once where the queue is full, or so long that its turn would come after the deadline;
        DeadlineExceeded where the deadline passes in the queue.
        """
        return Admitted(self, deadline, self._now)

    def try_acquire(self) -> bool:
        """A place, where one is free. Then nobody waits: one that is given back goes to who is first in the queue."""
        if self.running >= self._max_running:
            return False
        self.running += 1
        return True

    async def acquire(self, deadline: Deadline) -> None:
        """A place in its turn. Raises as `admit` says."""
        wait_seconds = self._expected_wait_seconds()
        if len(self._queue) >= self._max_queued or wait_seconds > deadline.remaining_seconds():
            self.shed += 1
            bounded = min(max(wait_seconds, LEAST_RETRY_AFTER_SECONDS), MOST_RETRY_AFTER_SECONDS)
            raise Overloaded(retry_after_seconds=bounded)
        await self._wait(deadline)

    def release(self, service_seconds: float) -> None:
        self._served += 1
        self._mean_seconds += max(1 / self._served, _LEAST_WEIGHT) * (service_seconds - self._mean_seconds)
        self._pass_on()

    async def _wait(self, deadline: Deadline) -> None:
        waiter = _Waiter(deadline)
        self._queue[waiter] = None
        try:
            has_turn = await waiter.turn
        except asyncio.CancelledError:
            if waiter.has_turn:  # it was given a place before it learned that it is cancelled
                self._pass_on()
            raise
        finally:
            waiter.timer.cancel()
            self._queue.pop(waiter, None)
        if not has_turn:
            raise DeadlineExceeded

    def _pass_on(self) -> None:
        """Give a place to the first who still waits, or back."""
        while self._queue:
            waiter, _ = self._queue.popitem(last=False)
            if not waiter.turn.done():
                waiter.turn.set_result(True)
                return
        self.running -= 1

    def _expected_wait_seconds(self) -> float:
        return (len(self._queue) + 1) * self._mean_seconds / self._max_running


class _Waiter:
    """One in the queue: its turn is True, or False once the deadline has passed, which may be moved while it waits."""

    __slots__ = ("deadline", "timer", "turn")

    def __init__(self, deadline: Deadline) -> None:
        self.deadline = deadline
        self.turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._set_timer()

    @property
    def has_turn(self) -> bool:
        return self.turn.done() and not self.turn.cancelled() and self.turn.result()

    def _set_timer(self) -> None:
        self.timer = self.turn.get_loop().call_later(self.deadline.remaining_seconds(), self._expire)

    def _expire(self) -> None:
        if self.turn.done():
            return
        if self.deadline.remaining_seconds() > 0:
            self._set_timer()
        else:
            self.turn.set_result(False)


class Admitted:
    """One place while the block runs; enters with the seconds it was queued."""

    __slots__ = ("_admission", "_deadline", "_now", "_started_at")

    def __init__(self, admission: Admission, deadline: Deadline, now: Callable[[], float]) -> None:
        self._admission = admission
        self._deadline = deadline
        self._now = now

    async def __aenter__(self) -> float:
        asked_at = self._started_at = self._now()
        if not self._admission.try_acquire():
            await self._admission.acquire(self._deadline)
            self._started_at = self._now()
        return self._started_at - asked_at

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admission.release(self._now() - self._started_at)
