"""A circuit breaker, and the outcomes that open and close it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import IntEnum, StrEnum
from typing import Final

RING: Final = 20
RING_SECONDS: Final = 30.0
LEAST_OUTCOMES: Final = 10
FAILED_SHARE: Final = 0.25
# A tenth of the calls to a healthy location are late, since the delay is made so, and a stall of this process makes
# many late together: 14 of 20 come by chance once in 10^9 times, and with 40 % late, as in a stall, once in 150.
MOST_LATE: Final = 14
OPEN_SECONDS: Final = 1.0
LONGEST_OPEN_SECONDS: Final = 30.0
SUCCESSES_TO_CLOSE: Final = 3


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Verdict(IntEnum):
    """Of a call, worst last."""

    SUCCEEDED = 0
    LATE = 1
    FAILED = 2


class Outcome:
    """Of one call to a location; a late one becomes worse when it fails."""

    __slots__ = ("at", "verdict")

    def __init__(self, at: float, verdict: Verdict) -> None:
        self.at = at
        self.verdict = verdict


class Breaker:
    """One location's circuit breaker.

    Opens where at least 10 of the last 20 outcomes, of at most 30 s, are known and a quarter of them failed, or where
    14 failed or were late. It is open for 1 s, for twice as long each time that it opens again before it has been
    closed for 30 s, for 30 s at most, each with jitter. Then one probe at a time is due: 3 successes in a row close
    it, a failure or a late answer opens it again.
    """

    def __init__(self, *, now: Callable[[], float], draw: Callable[[], float]) -> None:
        self._now = now
        self._draw = draw
        self._ring: deque[Outcome] = deque(maxlen=RING)
        self._successes = 0
        self._open_seconds = 0.0
        self._closed_at = -math.inf
        self.state = BreakerState.CLOSED
        self.openings = 0
        self.retry_at = -math.inf  # when the next probe is due
        self.probe: object | None = None  # the one under way

    def is_probe_due(self) -> bool:
        return self.state is not BreakerState.CLOSED and self.probe is None and self.retry_at <= self._now()

    def start_probe(self, call: object) -> None:
        self.state = BreakerState.HALF_OPEN
        self.probe = call
        self._pause(self._open_seconds)  # others come first until it is known how the probe ends

    def remember(self, outcome: Outcome) -> None:
        if self.state is BreakerState.CLOSED:
            self._ring.append(outcome)

    def succeeded(self, call: object) -> None:
        if self.state is BreakerState.CLOSED:
            return
        if self.probe is call:
            self.probe = None
        self.state = BreakerState.HALF_OPEN
        self.retry_at = self._now()
        self._successes += 1
        if self._successes >= SUCCESSES_TO_CLOSE:
            self._close()

    def opens(self, *, for_late: bool) -> bool:
        """Whether it has just opened, now that an outcome was bad. `for_late`: late calls are a reason."""
        opens = self.state is BreakerState.HALF_OPEN or (
            self.state is BreakerState.CLOSED and self._has_reason(for_late=for_late)
        )
        if opens:
            self._open()
        return opens

    def cancel_probe(self) -> None:
        """Nothing was learned: open again, though not for long."""
        self.probe = None
        self.state = BreakerState.OPEN
        self._pause(OPEN_SECONDS)

    def _has_reason(self, *, for_late: bool) -> bool:
        oldest_at = self._now() - RING_SECONDS
        while self._ring and self._ring[0].at < oldest_at:
            self._ring.popleft()
        verdicts = [outcome.verdict for outcome in self._ring]
        failed = verdicts.count(Verdict.FAILED)
        if len(verdicts) >= LEAST_OUTCOMES and failed >= FAILED_SHARE * len(verdicts):
            return True
        return for_late and failed + verdicts.count(Verdict.LATE) >= MOST_LATE

    def _open(self) -> None:
        is_relapse = self.state is BreakerState.HALF_OPEN or self._now() - self._closed_at < LONGEST_OPEN_SECONDS
        self._open_seconds = min(2 * self._open_seconds, LONGEST_OPEN_SECONDS) if is_relapse else OPEN_SECONDS
        self.state = BreakerState.OPEN
        self.openings += 1
        self.probe = None
        self._successes = 0
        self._ring.clear()
        self._pause(self._open_seconds)

    def _close(self) -> None:
        self.state = BreakerState.CLOSED
        self.probe = None
        self._closed_at = self._now()

    def _pause(self, seconds: float) -> None:
        self.retry_at = self._now() + seconds * (0.5 + 0.5 * self._draw())
