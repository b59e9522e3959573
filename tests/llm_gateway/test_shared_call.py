"""One call for many who wait, each within a deadline of its own."""

from __future__ import annotations

import asyncio

import pytest

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from llm_gateway.generation import ModelBlocked, ModelUnavailable
from llm_gateway.shared_call import SharedCall
from tests.llm_gateway.scripted_backend import nothing_left_behind, soon, until  # noqa: F401


class Work:
    """A call to share; it ends as the test says."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.was_cancelled = False
        self.overs = 0
        self.shared = SharedCall(self._run, self._count_over)

    def join(self, deadline: Deadline | None = None) -> asyncio.Task[str]:
        return asyncio.create_task(self.shared.join(deadline or soon()))

    async def _run(self) -> str:
        try:
            return await asyncio.shield(self.outcome)
        except asyncio.CancelledError:
            self.was_cancelled = not self.outcome.cancelled()
            raise

    def _count_over(self) -> None:
        self.overs += 1


async def joined(work: Work, count: int) -> list[asyncio.Task[str]]:
    tasks = [work.join() for _ in range(count)]
    await until(lambda: work.shared._waiters == count)
    return tasks


async def test_all_have_what_it_ends_with():
    work = Work()
    tasks = await joined(work, 3)
    work.outcome.set_result("done")
    assert await asyncio.gather(*tasks, work.join()) == ["done"] * 4
    assert (work.overs, work.shared.is_over) == (1, True)


@pytest.mark.parametrize("leaver", [0, 2])
async def test_one_that_leaves_does_not_hurt_the_others(leaver):
    work = Work()
    tasks = await joined(work, 3)
    tasks.pop(leaver).cancel()
    await until(lambda: work.shared._waiters == 2)
    work.outcome.set_result("done")
    assert await asyncio.gather(*tasks) == ["done"] * 2
    assert not work.was_cancelled


async def test_the_last_to_leave_cancels_it_and_from_then_on_it_cannot_be_joined():
    work = Work()
    tasks = await joined(work, 2)
    tasks[0].cancel()
    tasks[1].cancel()
    overs_before, _ = work.overs, await asyncio.wait(tasks)
    assert overs_before == 0
    assert work.overs >= 1
    await until(lambda: work.was_cancelled)


async def test_it_is_over_for_others_before_its_cancellation_is_done():
    work = Work()
    with work.shared.waiting():
        await asyncio.sleep(0)
    assert (work.overs, work.shared.is_over) == (1, False)


async def test_each_waits_no_longer_than_its_own_deadline():
    work = Work()
    (patient,) = await joined(work, 1)
    with pytest.raises(DeadlineExceeded):
        await work.join(Deadline.after(0.02))
    assert not work.was_cancelled
    work.outcome.set_result("done")
    assert await patient == "done"


async def test_one_that_nobody_waits_for_runs_to_its_end():
    work = Work()
    await asyncio.sleep(0)
    work.outcome.set_result("done")
    await until(lambda: work.shared.is_over)
    assert work.shared.result() == "done"


async def test_a_failure_that_nobody_hears_of_is_no_complaint():
    work = Work()
    work.outcome.set_exception(ModelBlocked())
    await until(lambda: work.shared.is_over)


async def test_a_failure_reaches_everyone_with_a_traceback_of_its_own():
    work = Work()
    tasks = await joined(work, 20)
    work.outcome.set_exception(ModelBlocked())
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ModelBlocked}
    assert max(frames_of(outcome) for outcome in outcomes) < 10  # and not twenty callers' frames


def frames_of(error: BaseException) -> int:
    count, traceback = 0, error.__traceback__
    while traceback:
        count, traceback = count + 1, traceback.tb_next
    return count


async def test_a_defect_reaches_everyone():
    work = Work()
    tasks = await joined(work, 3)
    work.outcome.set_exception(KeyError("defect"))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {KeyError}


async def test_cancelled_from_below_it_is_a_failure_for_those_above():
    work = Work()
    (task,) = await joined(work, 1)
    work.outcome.cancel()
    with pytest.raises(ModelUnavailable):
        await task


async def test_one_that_is_ended_is_a_failure_for_those_who_wait():
    work = Work()
    (task,) = await joined(work, 1)
    await work.shared.cancel()
    assert work.shared.is_over
    with pytest.raises(ModelUnavailable):
        await task
