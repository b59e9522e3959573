"""How often callers may call, and how many tokens they may use."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from chassis.access.rates import Rates
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason

if TYPE_CHECKING:  # the library behind these costs 50 ms of the start
    from limits import RateLimitItem

    from chassis.access.counters import Tally
    from chassis.access.windows import Window

CLOSE_SECONDS: Final = 1.0
REQUESTS: Final = "requests"
TOKENS: Final = "tokens"
T = TypeVar("T")


class Counters(Protocol):
    """Where it is counted; see counters.py."""

    async def use(self, work: Callable[[Tally], Awaitable[T]]) -> T: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a caller stands with one limit."""

    unit: str
    item: RateLimitItem
    window: Window

    @property
    def remaining(self) -> int:
        return max(0, self.item.amount - self.window.counted)

    @property
    def share(self) -> float:
        return self.remaining / self.item.amount

    @property
    def reset_seconds(self) -> float:
        """Until more remains than now; 0 where all of it does."""
        return self.window.seconds_until(max(0, self.item.amount - self.remaining - 1))

    def after_one(self) -> _Standing:
        return _Standing(self.unit, self.item, self.window.plus(1)) if self.unit == REQUESTS else self

    def headers(self) -> Mapping[str, str]:
        return {
            "RateLimit-Limit": str(self.item.amount),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(ceil(self.reset_seconds)),
        }


class Limiter:
    """Counts calls and tokens of callers. What a call uses of tokens is known at its end: it is admitted while that
    limit is not reached, and charged afterwards."""

    def __init__(self, requests: Rates, tokens: Rates, counters: Counters) -> None:
        self._requests = requests
        self._tokens = tokens
        self._counters = counters
        self._owed: dict[tuple[str, str], int] = {}
        self._charging: asyncio.Task[None] | None = None

    async def admit(self, who: str, tier: str) -> Mapping[str, str]:
        """Count a call; the headers that tell of the tightest limit, and none where there is no limit. Raises
        IonError(RATE_LIMITED)."""
        limits = [(TOKENS, item) for item in self._tokens.of(tier)]
        limits += [(REQUESTS, item) for item in self._requests.of(tier)]
        if not limits:
            return {}
        standings, admitted = await self._counters.use(lambda tally: _count(tally, limits, _digest(who)))
        tightest = min(standings, key=lambda standing: (standing.share, -standing.reset_seconds))
        if not admitted:
            raise IonError(
                Reason.REASON_RATE_LIMITED,
                f"The limit of this caller is reached: {tightest.unit}, {tightest.item}.",
                retry_after_seconds=tightest.reset_seconds,
                headers=tightest.headers(),
            )
        return tightest.headers()

    def charge(self, who: str, tier: str, tokens: int) -> None:
        """Count tokens, in the background. Calls of one caller that end meanwhile are counted together, so that no more
        waits than there are callers."""
        if not self._tokens.of(tier):
            return
        owed = (_digest(who), tier)
        self._owed[owed] = self._owed.get(owed, 0) + tokens
        if self._charging is None or self._charging.done():
            # Not as part of this call: it charges for others too.
            self._charging = asyncio.get_running_loop().create_task(self._charge_all(), context=Context())

    async def close(self) -> None:
        """What is owed is still counted, where that takes no longer than CLOSE_SECONDS."""
        if self._charging is not None:
            await asyncio.wait((self._charging,), timeout=CLOSE_SECONDS)
            self._charging.cancel()
            with suppress(asyncio.CancelledError):
                await self._charging
        await self._counters.close()

    async def _charge_all(self) -> None:
        while self._owed:
            (key, tier), tokens = self._owed.popitem()
            await self._charge(key, tier, tokens)

    async def _charge(self, key: str, tier: str, tokens: int) -> None:
        async def add(tally: Tally) -> None:
            for item in self._tokens.of(tier):
                await tally.add(item, _name(TOKENS, key), tokens)

        await self._counters.use(add)


async def _count(tally: Tally, limits: Sequence[tuple[str, RateLimitItem]], key: str) -> tuple[list[_Standing], bool]:
    """How the caller stands with each limit, and whether the call was counted: not where one is reached."""
    standings = await _look_up(tally, limits, key)
    if not all(standing.remaining for standing in standings):
        return standings, False
    for unit, item in limits:
        if unit == REQUESTS and not await tally.take(item, _name(unit, key)):
            return await _look_up(tally, limits, key), False  # others took the last ones meanwhile
    return [standing.after_one() for standing in standings], True


async def _look_up(tally: Tally, limits: Sequence[tuple[str, RateLimitItem]], key: str) -> list[_Standing]:
    return [_Standing(unit, item, await tally.window(item, _name(unit, key))) for unit, item in limits]


def _name(unit: str, key: str) -> str:
    return f"{unit}:{key}"


def _digest(who: str) -> str:
    """What counts are kept under: neither keys nor addresses stand in Redis."""
    return hashlib.sha256(who.encode()).hexdigest()[:32]
