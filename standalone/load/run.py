"""The callers at work."""

from __future__ import annotations

import asyncio
import itertools
import secrets
from contextlib import suppress
from typing import Final

import httpx

from chassis.errors import IonError
from standalone.load.callers import Called
from standalone.load.plan import Plan
from standalone.load.tally import Tally, now

# After a failure: a server that is away is not to be asked a thousand times a second, nor is this machine to be busy
# with it.
PAUSE_SECONDS: Final = 0.05
FORGET_SECONDS: Final = 5.0


class Run:
    """One run of a plan. Calls that have begun when its time is over are waited for."""

    def __init__(self, called: Called, plan: Plan, *, session: bool) -> None:
        self.tally = Tally()
        self._called = called
        self._plan = plan
        self._messages = itertools.cycle(plan.messages)
        self._numbers = itertools.count()
        name = f"load-{secrets.token_hex(6)}"
        self._sessions = [f"{name}-{number}" if session else "" for number in range(plan.callers)]
        self._begun_at = self._ended_at = now()

    @property
    def seconds(self) -> float:
        """From the beginning until now, or to the end of the last call."""
        return self._ended_at - self._begun_at

    def tick(self) -> None:
        self._ended_at = now()

    async def go(self) -> None:
        self._begun_at = now()
        try:
            async with asyncio.TaskGroup() as group:
                for session_id in self._sessions:
                    group.create_task(self._call(session_id))
        finally:
            self.tick()
            await self._forget()

    async def _call(self, session_id: str) -> None:
        """One caller, from its first call to its last."""
        while (begun_at := await self._turn()) is not None:
            self.tally.sent += 1
            answer = await self._called.ask(next(self._messages), session_id)
            self.tally.add(answer, begun_at=begun_at, ended_at=now())
            if answer.failure:
                await asyncio.sleep(PAUSE_SECONDS)

    async def _turn(self) -> float | None:
        """Wait for the time of the next call, which it is measured from: who is late because the server is slow counts
        as waiting. None when there is no time left."""
        time, end = now(), self._begun_at + self._plan.seconds
        due = time if self._plan.rate is None else self._begun_at + next(self._numbers) / self._plan.rate
        if max(time, due) >= end:
            return None
        await asyncio.sleep(max(0.0, due - time))
        return due

    async def _forget(self) -> None:
        """Best effort: what is left is sessions that nobody knows."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FORGET_SECONDS):
                for session_id in filter(None, self._sessions):
                    with suppress(IonError, httpx.HTTPError):
                        await self._called.forget(session_id)
