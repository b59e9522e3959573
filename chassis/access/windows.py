"""A sliding window of two counters, as `limits` keeps it: what was counted in the period before fades evenly, what was
counted in this one is whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor
from typing import Final

_JUST_AFTER_SECONDS: Final = 0.001  # at the moment itself the count is still the old one


@dataclass(frozen=True, slots=True)
class Window:
    """`previous_seconds` until the period before has faded, `current_seconds` until this one will have: it has
    `period_seconds` less to go until it begins to."""

    previous: int
    previous_seconds: float
    current: int
    current_seconds: float
    period_seconds: int

    @property
    def counted(self) -> int:
        return floor(self.previous * self.previous_seconds / self.period_seconds) + self.current

    def plus(self, count: int) -> Window:
        """The same with so many more counted just now."""
        return replace(
            self, current=self.current + count, current_seconds=self.current_seconds or 2.0 * self.period_seconds
        )

    def seconds_until(self, count: int) -> float:
        """How long until no more than `count`, 0 or more, are counted if nothing more comes; 0 where that holds now."""
        if self.counted <= count:
            return 0.0
        fading, seconds = (
            (self.previous, self.previous_seconds) if self.current <= count else (self.current, self.current_seconds)
        )
        left = count - self.current if self.current <= count else count
        return max(0.0, seconds - (left + 1) * self.period_seconds / fading) + _JUST_AFTER_SECONDS
