"""Who gets a turn, in which order, and who is told at once that there is none."""

from __future__ import annotations

import asyncio
import gc
import random
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from llm_gateway.admission import Admission
from llm_gateway.generation import Overloaded
from tests.llm_gateway.conftest import Clock


def far() -> Deadline:
    return Deadline.after(1000.0)


async def turn_of_loop() -> None:
    """What is ready runs, and what that makes ready."""
    for _ in range(3):
        await asyncio.sleep(0)


class Caller:
    """One that holds its place until it is told to leave."""

    def __init__(self, admission: Admission, deadline: Deadline | None = None) -> None:
        self.queued_seconds: float | None = None
        self._leave = asyncio.Event()
        self.task = asyncio.create_task(self._call(admission, deadline or far()))

    async def _call(self, admission: Admission, deadline: Deadline) -> None:
        async with admission.admit(deadline) as self.queued_seconds:
            await self._leave.wait()

    @property
    def is_in(self) -> bool:
        return self.queued_seconds is not None and not self.task.done()

    async def leave(self) -> None:
        self._leave.set()
        await turn_of_loop()


@asynccontextmanager
async def callers(admission: Admission, *deadlines: Deadline | None) -> AsyncIterator[list[Caller]]:
    made = [Caller(admission, deadline) for deadline in deadlines]
    await turn_of_loop()
    try:
        yield made
    finally:
        for caller in made:
            caller.task.cancel()
        await asyncio.gather(*(caller.task for caller in made), return_exceptions=True)


async def serve(admission: Admission, clock: Clock, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        async with admission.admit(far()):
            clock.at += seconds


async def test_as_many_as_may_run_and_the_rest_in_order(clock: Clock) -> None:
    admission = Admission(2, 10, now=clock)
    async with callers(admission, *[None] * 5) as made:
        assert [caller.is_in for caller in made] == [True, True, False, False, False]
        assert (admission.running, admission.queued) == (2, 3)
        clock.at += 7
        await made[1].leave()
        assert [caller.is_in for caller in made] == [True, False, True, False, False]
        assert (made[0].queued_seconds, made[2].queued_seconds) == (0, 7)
        await made[0].leave()
        await made[2].leave()
        assert [caller.is_in for caller in made] == [False, False, False, True, True]
        assert (admission.running, admission.queued) == (2, 0)


async def test_nobody_overtakes_who_waits() -> None:
    admission = Admission(1, 10)
    async with callers(admission, None, None) as (first, waiting):
        first._leave.set()
        await first.task  # its place is promised, and who waited has not run yet
        late = Caller(admission)
        await turn_of_loop()
        assert (waiting.is_in, late.is_in, admission.running) == (True, False, 1)
        await waiting.leave()
        assert late.is_in
        await late.leave()


async def test_a_full_queue_sheds_at_once() -> None:
    admission = Admission(1, 2)
    async with callers(admission, None, None, None):
        with pytest.raises(Overloaded):
            await Caller(admission).task
        assert (admission.running, admission.queued, admission.shed) == (1, 2, 1)


@pytest.mark.parametrize(
    ("service_seconds", "retry_after_seconds"),
    [(0.001, 0.1), (2.0, 3.0), (100.0, 30.0)],
    ids=["least", "drain", "most"],
)
async def test_retry_after_is_the_time_that_the_queue_takes_to_drain(
    clock: Clock, service_seconds: float, retry_after_seconds: float
) -> None:
    admission = Admission(2, 2, now=clock)
    await serve(admission, clock, service_seconds)
    async with callers(admission, *[None] * 4):
        with pytest.raises(Overloaded) as raised:
            await Caller(admission).task
        assert raised.value.retry_after_seconds == pytest.approx(retry_after_seconds)


async def test_whose_turn_would_come_after_the_deadline_is_shed_at_once(clock: Clock) -> None:
    admission = Admission(2, 100, now=clock)
    await serve(admission, clock, 4.0)
    async with callers(admission, None, None, None):  # a turn in (1 + 1) * 4 s / 2
        with pytest.raises(Overloaded):
            await Caller(admission, Deadline.after(3.9)).task
        assert admission.queued == 1
        async with callers(admission, Deadline.after(60)):
            assert (admission.queued, admission.shed) == (2, 1)


async def test_the_expected_wait_follows_recent_service_times(clock: Clock) -> None:
    admission = Admission(1, 100, now=clock)
    await serve(admission, clock, 100.0, times=20)
    await serve(admission, clock, 1.0, times=100)
    async with callers(admission, None, Deadline.after(10)) as (_, waiting):
        assert not waiting.task.done()


async def test_a_deadline_that_passes_in_the_queue() -> None:
    admission = Admission(1, 10, now=Clock())
    async with admission.admit(far()):
        pass  # in no time, so that the wait is expected to be short
    async with callers(admission, None) as (first,):
        with pytest.raises(DeadlineExceeded):
            await Caller(admission, Deadline.after(0.01)).task
        assert (admission.running, admission.queued, admission.shed) == (1, 0, 0)
        await first.leave()
        assert admission.running == 0


async def test_a_deadline_that_is_moved_in_the_queue_is_obeyed() -> None:
    admission = Admission(1, 10, now=Clock())
    async with admission.admit(far()):
        pass
    moved, passed = Deadline.after(0.01), Deadline.after(0.02)
    async with callers(admission, None) as (first,):
        waiting, other = Caller(admission, moved), Caller(admission, passed)
        await turn_of_loop()
        moved.extend_to(far())
        with pytest.raises(DeadlineExceeded):
            await other.task
        assert admission.queued == 1
        await first.leave()
        assert waiting.is_in
        await waiting.leave()


async def test_who_is_cancelled_in_the_queue_leaves_it() -> None:
    admission = Admission(1, 10)
    async with callers(admission, None, None, None) as made:
        made[1].task.cancel()
        await turn_of_loop()
        assert (made[1].task.cancelled(), admission.queued) == (True, 1)
        await made[0].leave()
        assert made[2].is_in


async def test_who_is_cancelled_as_its_turn_comes_passes_it_on() -> None:
    admission = Admission(1, 10)
    async with callers(admission, None, None, None) as made:
        made[0]._leave.set()
        await made[0].task  # the next has its turn, and does not know yet
        made[1].task.cancel()
        await turn_of_loop()
        assert (made[1].task.cancelled(), made[2].is_in, admission.running) == (True, True, 1)


async def test_a_place_is_given_back_whatever_happens_there() -> None:
    admission = Admission(1, 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with admission.admit(far()):
                raise ZeroDivisionError
    assert admission.running == 0


@pytest.mark.parametrize("seed", range(20))
async def test_places_are_neither_lost_nor_made_in_any_order_of_events(seed: int) -> None:
    draws = random.Random(seed)
    admission = Admission(3, 20, now=Clock())
    made: list[Caller] = []
    for _ in range(400):
        made.extend(
            Caller(admission, draws.choice([None, None, Deadline.after(0.002)])) for _ in range(draws.randrange(4))
        )
        for caller in draws.sample(made, min(len(made), draws.randrange(4))):
            draws.choice([caller.task.cancel, caller._leave.set])()
        await asyncio.sleep(0)
        assert sum(caller.is_in for caller in made) <= admission.running <= 3
        assert admission.queued <= 20
    for caller in made:
        caller._leave.set()
    await asyncio.gather(*(caller.task for caller in made), return_exceptions=True)
    assert (admission.running, admission.queued) == (0, 0)
    async with callers(admission, None, None, None) as last:
        assert all(caller.is_in for caller in last)


class WatchedDeadline(Deadline):
    """One that can be seen to be gone."""


async def test_who_had_a_turn_leaves_no_timer_behind() -> None:
    admission = Admission(1, 10)
    deadline = WatchedDeadline.after(1000.0)
    left = weakref.ref(deadline)
    async with callers(admission, None) as (first,):
        waiting = Caller(admission, deadline)
        await turn_of_loop()
        await first.leave()
        await waiting.leave()
    del waiting, deadline
    gc.collect()
    assert left() is None


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
async def test_ten_thousand_at_once_leave_nothing_behind_but_the_queue() -> None:
    admission = Admission(8, 64, now=Clock())
    release = asyncio.Event()

    async def call() -> str:
        try:
            async with admission.admit(far()):
                await release.wait()
                return "answered"
        except Overloaded:
            return "shed"

    async def all_at_once() -> list[asyncio.Task[str]]:
        """Those that are not answered at once."""
        calls = [asyncio.create_task(call()) for _ in range(10_000)]
        await turn_of_loop()
        return [task for task in calls if not task.done()]

    waiting = await all_at_once()
    assert (len(waiting), admission.running, admission.queued, admission.shed) == (72, 8, 64, 9928)
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    assert await all_at_once() == []
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    assert after - before < 100_000
    release.set()
    assert await asyncio.gather(*waiting) == ["answered"] * 72


async def test_a_free_place_is_taken_without_a_turn_of_the_loop() -> None:
    admission = Admission(1, 0)
    entering = admission.admit(far()).__aenter__()
    with pytest.raises(StopIteration) as stopped:
        entering.send(None)
    assert stopped.value.value == 0.0
