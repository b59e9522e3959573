"""The callers at work, with a server that answers when a test wants it to."""

from __future__ import annotations

import asyncio

from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from standalone.load.plan import Plan
from standalone.load.run import Run
from standalone.load.tally import Answer
from tests.stack.harness import until

SHORT = 0.1


class Called:
    """Answers after `seconds`, and not before `open` is set."""

    def __init__(self, *, seconds: float = 0.0, is_open: bool = True) -> None:
        self.open = asyncio.Event()
        if is_open:
            self.open.set()
        self.said: list[tuple[str, str]] = []
        self.forgotten: list[str] = []
        self.at_once = self.most_at_once = 0
        self._seconds = seconds

    async def ask(self, message: str, session_id: str) -> Answer:
        self.said.append((message, session_id))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(self._seconds)
        await self.open.wait()
        self.at_once -= 1
        return Answer(persona="Lua", cache="hit")

    async def forget(self, session_id: str) -> None:
        self.forgotten.append(session_id)
        raise IonError(Reason.REASON_SESSION_NOT_FOUND)


async def test_calls_that_have_begun_are_waited_for():
    called = Called(is_open=False)
    run = Run(called, Plan(callers=3, seconds=SHORT), session=False)
    going = asyncio.create_task(run.go())
    await asyncio.sleep(2 * SHORT)
    assert not going.done()
    called.open.set()
    await going
    assert (run.tally.sent, run.tally.answered) == (3, 3)
    assert run.seconds >= 2 * SHORT


async def test_no_more_calls_at_once_than_callers():
    called = Called(seconds=0.01)
    await Run(called, Plan(callers=3, seconds=SHORT), session=False).go()
    assert called.most_at_once == 3
    assert len(called.said) > 3


async def test_with_a_rate_who_had_to_wait_for_others_has_waited():
    called = Called(seconds=0.05)
    run = Run(called, Plan(callers=1, seconds=0.2, rate=100.0), session=False)
    await run.go()
    times = list(run.tally.times)
    assert len(times) > 2
    # The nth was due after 10n ms and began after 50n ms or later.
    assert all(time >= 0.05 + 0.039 * number for number, time in enumerate(times))


async def test_each_caller_keeps_a_session_of_its_own_and_all_are_deleted():
    called = Called(seconds=0.01)
    await Run(called, Plan(callers=3, seconds=SHORT), session=True).go()
    sessions = {session_id for _, session_id in called.said}
    assert len(sessions) == 3
    assert sorted(called.forgotten) == sorted(sessions)


async def test_sessions_are_deleted_after_an_interrupt_too():
    called = Called(is_open=False)
    run = Run(called, Plan(callers=2, seconds=60.0), session=True)
    going = asyncio.create_task(run.go())

    async def begun() -> bool:
        return run.tally.sent == 2

    await until(begun)
    going.cancel()
    await asyncio.wait([going])
    assert going.cancelled()
    assert len(called.forgotten) == 2
