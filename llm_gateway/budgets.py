"""What limits extra calls: a share of traffic for the process, attempts and tokens for a request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

MAX_ATTEMPTS: Final = 4  # one call, two retries, one hedge
_BUCKETS: Final = 60  # of a window
_ROUNDING: Final = 1e-9  # 0.1 * 70 is not 7


class RatioBudget:
    """Lets extra calls be a share of the calls.

    Each withdrawal keeps those of the last `window_seconds` at or below `share` times the deposits of the same time,
    plus `floor`. So over a whole run there are at most `share` times all deposits, plus `floor` for each window of the
    run that has begun: with a floor of 0 the share holds strictly.
    """

    def __init__(
        self,
        share: float = 0.10,
        floor: int = 10,
        window_seconds: float = 60.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._share = share
        self._floor = floor
        self._bucket_seconds = window_seconds / _BUCKETS
        self._now = now
        self._buckets: deque[_Bucket] = deque()
        self._deposits = 0  # of the window, as is the next
        self._withdrawals = 0
        self.spent = 0
        self.denied = 0

    def deposit(self) -> None:
        """A call was made that is not an extra one."""
        self._current().deposits += 1
        self._deposits += 1

    def withdraw(self) -> bool:
        """Whether an extra call may be made now; it is counted as made."""
        bucket = self._current()
        if self._withdrawals + 1 > self._share * self._deposits + self._floor + _ROUNDING:
            self.denied += 1
            return False
        bucket.withdrawals += 1
        self._withdrawals += 1
        self.spent += 1
        return True

    def _current(self) -> _Bucket:
        """The bucket of this moment; those that have left the window are forgotten."""
        number = int(self._now() / self._bucket_seconds)
        if self._buckets and self._buckets[-1].number == number:
            return self._buckets[-1]
        while self._buckets and self._buckets[0].number <= number - _BUCKETS:
            old = self._buckets.popleft()
            self._deposits -= old.deposits
            self._withdrawals -= old.withdrawals
        self._buckets.append(_Bucket(number))
        return self._buckets[-1]


class _Bucket:
    __slots__ = ("deposits", "number", "withdrawals")

    def __init__(self, number: int) -> None:
        self.number = number
        self.deposits = 0
        self.withdrawals = 0


class RequestBudget:
    """What one request may spend on model calls. Its first attempt is always allowed."""

    def __init__(self, *, attempts: int = MAX_ATTEMPTS, input_tokens: int = 0) -> None:
        """`attempts` counts the first one. `input_tokens` is for all attempts together; 0 means no bound."""
        self._attempts = attempts
        self._input_tokens = input_tokens
        self.attempts_made = 0
        self.input_tokens_taken = 0

    def may_attempt(self, input_tokens: int) -> bool:
        """Whether one more call with so many input tokens stays within both."""
        if self.attempts_made == 0:
            return True
        fits = self._input_tokens == 0 or self.input_tokens_taken + input_tokens <= self._input_tokens
        return fits and self.attempts_made < self._attempts

    def took(self, input_tokens: int) -> None:
        """A call was made."""
        self.attempts_made += 1
        self.input_tokens_taken += input_tokens
