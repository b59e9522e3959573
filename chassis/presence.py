"""Whether something that is used over the network is there, said in the log once per change."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Final

QUIET_SECONDS: Final = 0.25  # before the first look, unless somebody wants it
LATE_SECONDS: Final = 0.05  # what keeps a timer that long is still the start
LOOK_SECONDS: Final = 2.0  # between looks while it is there and nobody uses it
FIRST_PAUSE_SECONDS: Final = 0.1  # between looks while it is away, doubling
LONGEST_PAUSE_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Presence:
    """Of one thing, called `name` in the log. It is not available before it has been found."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._looked = asyncio.Event()
        self._wanted = asyncio.Event()
        self._change = asyncio.Event()  # the next one
        self._pause = FIRST_PAUSE_SECONDS
        self._said = ""  # why it is not available, as logged
        self._said_refused = False
        self.available = False
        self.absences = 0

    async def wait_until_known(self) -> bool:
        """Whether it is available, as soon as somebody has looked."""
        if not self._looked.is_set():
            self._wanted.set()
            await self._looked.wait()
        return self.available

    async def changes(self) -> AsyncGenerator[bool, None]:
        """Whether it is available: as soon as somebody has looked, and then with each change."""
        await self._looked.wait()
        while True:
            change = self._change
            yield self.available
            await change.wait()

    @property
    def is_known(self) -> bool:
        return self._looked.is_set()

    def find(self) -> None:
        """It has answered a look."""
        self._pause = FIRST_PAUSE_SECONDS
        self._set(available=True)
        if self._said:
            self._said = ""
            _log.info("%s is connected again", self._name)

    def lose(self, cause: str, *, absences: int, text: str = "is away", error: BaseException | None = None) -> None:
        """`absences` as they were when what failed began: it may tell of an absence that is over."""
        if absences != self.absences:
            return
        self.absences += self.available
        self._set(available=False)
        self._wanted.set()
        if text != self._said:
            self._said = text
            _log.warning("%s %s", self._name, text, extra={"cause": cause}, exc_info=error)

    def _set(self, *, available: bool) -> None:
        changes, self.available = available is not self.available, available
        self._looked.set()
        if changes:
            self._change.set()
            self._change = asyncio.Event()

    def refuse(self, cause: str) -> None:
        """It is there, and does not do what it is asked."""
        if not self._said_refused:
            self._said_refused = True
            _log.warning("%s refuses", self._name, extra={"cause": cause})

    def use(self) -> None:
        """It has done what it was asked."""
        self._said_refused = False

    def want_look(self) -> None:
        self._wanted.set()

    async def wait_for_first_look(self) -> None:
        """Until somebody wants it, or the process has started: a look may be work that the start is not to wait for."""
        late = True
        while late and not self._wanted.is_set():
            due_at = time.monotonic() + QUIET_SECONDS
            await _happens(self._wanted, QUIET_SECONDS)
            late = time.monotonic() - due_at > LATE_SECONDS
        self._wanted.clear()

    async def wait_for_look(self) -> None:
        """Until it is time to look: soon where it is away or somebody wants it, else after LOOK_SECONDS."""
        if self.available:
            await _happens(self._wanted, LOOK_SECONDS)
        else:
            await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._wanted.clear()


async def _happens(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
