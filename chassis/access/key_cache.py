"""Keys that were looked up a short while ago, so that the database is not asked for each call."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from chassis.access.keys import StoredKey
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason

FRESH_SECONDS: Final = 10.0  # after which a revocation is known everywhere
UNKNOWN_SECONDS: Final = 5.0  # how long an id that does not exist is believed not to
AWAY_SECONDS: Final = 600.0  # how long a known key goes on while the database is away
MAX_ENTRIES: Final = 10_000
# Ids that were not valid when last looked at, if they ever were: whoever guesses takes this much of the database, and
# keys that are known are looked up beside them.
STRANGERS: Final = 4
MAX_STRANGERS_WAITING: Final = 1000

LookUp = Callable[[str], Awaitable[StoredKey | None]]


@dataclass(frozen=True, slots=True)
class _Entry:
    stored: StoredKey | None
    asked_at: float

    def is_younger(self, seconds: float, now: float) -> bool:
        return now - self.asked_at < seconds


class KeyCache:
    """`look_up` raises IonError where the database is away. Calls that need the same key at once ask for it once."""

    def __init__(self, look_up: LookUp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: OrderedDict[str, _Entry] = OrderedDict()
        self._unknown: OrderedDict[str, _Entry] = OrderedDict()  # apart, so that guesses push out guesses alone
        self._flights: dict[str, asyncio.Task[StoredKey | None]] = {}
        self._strangers = asyncio.Semaphore(STRANGERS)

    async def find(self, key_id: str) -> StoredKey | None:
        """None where there is no such key. Raises IonError where it cannot be looked up now and was not, lately."""
        entry, now = self._entry(key_id), self._clock()
        if entry and entry.is_younger(FRESH_SECONDS if entry.stored else UNKNOWN_SECONDS, now):
            return entry.stored
        try:
            return await asyncio.shield(self._flight(key_id))
        except IonError:
            if entry and entry.stored and entry.is_younger(AWAY_SECONDS, now):
                return entry.stored
            raise

    async def close(self) -> None:
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    def _flight(self, key_id: str) -> asyncio.Task[StoredKey | None]:
        """A task of its own: whoever waits may leave without the others losing it."""
        flight = self._flights.get(key_id)
        if flight is None:
            flight = self._flights[key_id] = asyncio.create_task(self._ask(key_id))
            flight.add_done_callback(_retrieve)
        return flight

    async def _ask(self, key_id: str) -> StoredKey | None:
        try:
            async with self._turn(key_id):
                asked_at = self._clock()
                stored = await self._look_up(key_id)
        finally:
            del self._flights[key_id]
        self._remember(key_id, _Entry(stored, asked_at))
        return stored

    def _entry(self, key_id: str) -> _Entry | None:
        return self._known.get(key_id) or self._unknown.get(key_id)

    def _remember(self, key_id: str, entry: _Entry) -> None:
        here, there = (self._known, self._unknown) if entry.stored else (self._unknown, self._known)
        there.pop(key_id, None)
        here[key_id] = entry
        here.move_to_end(key_id)
        if len(here) > MAX_ENTRIES:
            here.popitem(last=False)

    @asynccontextmanager
    async def _turn(self, key_id: str) -> AsyncIterator[None]:
        if key_id in self._known:
            yield
            return
        if len(self._flights) > MAX_STRANGERS_WAITING:
            raise IonError(Reason.REASON_OVERLOADED)
        async with self._strangers:
            yield


def _retrieve(flight: asyncio.Task[StoredKey | None]) -> None:
    """Nobody may be left to see how it failed."""
    if not flight.cancelled():
        flight.exception()
