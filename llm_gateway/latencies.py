"""Hedge delays, learned from each model's recent latencies."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

MAX_MODELS: Final = 100  # the least recently used are forgotten
# Below it a stall of this process would look like slowness of the model.
LEAST_SECONDS: Final = 0.050
EARLY_SHARE: Final = 0.8  # of the time to a late reply, before which a first token is early
_REFRESHES_PER_MAX_AGE: Final = 10


@dataclass(frozen=True, slots=True)
class HedgeDelays:
    """When a call is late: without its first token after the one, without its whole reply after the other. None: not
    known yet, do not hedge on it."""

    first_token_seconds: float | None = None
    reply_seconds: float | None = None

    @property
    def first_token_tells(self) -> bool:
        """Whether a late first token is seen well before a late reply is, as far as is known."""
        if self.first_token_seconds is None or self.reply_seconds is None:
            return True
        return self.first_token_seconds < EARLY_SHARE * self.reply_seconds


UNKNOWN: Final = HedgeDelays()


class Latency(NamedTuple):
    """Of one call, in seconds; None where it was not measured."""

    at: float
    first_token: float | None
    reply: float | None


class Latencies:
    """The last latencies of each model, and the delays after which `share` of its calls are hedged."""

    def __init__(
        self,
        *,
        share: float = 0.09,
        window: int = 1000,
        least: int = 50,
        max_age_seconds: float = 600.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`window` calls of a model are remembered, none older than `max_age_seconds`; delays are known from `least`
        on. `share` is a little less than hedges may cost, so that their budget rarely refuses at random."""
        self._share = share
        self._window = window
        self._least = least
        self._max_age_seconds = max_age_seconds
        self._now = now
        self._models: OrderedDict[str, _Recent] = OrderedDict()

    def add(self, model: str, *, first_token_seconds: float | None, reply_seconds: float | None) -> None:
        """What a call took; hedges are not added, since only late calls have them.

        Of a call that was cancelled because its hedge won, pass what is known: a time that did not come is at least
        the time that passed, and at least the delay that it was hedged for.
        """
        recent = self._models.get(model)
        if recent is None:
            recent = self._models[model] = _Recent(deque(maxlen=self._window))
            if len(self._models) > MAX_MODELS:
                self._models.popitem(last=False)
        self._models.move_to_end(model)
        recent.calls.append(Latency(self._now(), first_token_seconds, reply_seconds))
        recent.added += 1

    def delays(self, model: str) -> HedgeDelays:
        """A lookup but for every twentieth of the window, when the calls are sorted again (0.2 ms for 1000 calls, so
        4 µs a call)."""
        recent = self._models.get(model)
        if recent is None:
            return UNKNOWN
        now = self._now()
        is_old = now - recent.computed_at >= self._max_age_seconds / _REFRESHES_PER_MAX_AGE
        if is_old or recent.added >= max(10, len(recent.calls) // 20):
            recent.forget_before(now - self._max_age_seconds)
            if len(recent.calls) < self._least:
                return UNKNOWN
            recent.keep(hedge_delays(recent.calls, share=self._share, least=self._least), now)
        return recent.delays

    def known(self) -> dict[str, HedgeDelays]:
        """The delays of each model as last looked at; another thread may ask."""
        return {model: recent.delays for model, recent in self._models.copy().items()}

    @property
    def models(self) -> list[str]:
        """Those that something is known of, by name."""
        return sorted(self._models)


class _Recent:
    """One model's calls, oldest first, and the delays they gave when last looked at."""

    __slots__ = ("added", "calls", "computed_at", "delays")

    def __init__(self, calls: deque[Latency]) -> None:
        self.calls = calls
        self.added = 0  # since `computed_at`
        self.computed_at = float("-inf")
        self.delays = UNKNOWN

    def forget_before(self, at: float) -> None:
        while self.calls and self.calls[0].at < at:
            self.calls.popleft()

    def keep(self, delays: HedgeDelays, now: float) -> None:
        self.delays, self.computed_at, self.added = _at_least(LEAST_SECONDS, delays), now, 0


def _at_least(seconds: float, delays: HedgeDelays) -> HedgeDelays:
    first_token, reply = (
        None if delay is None else max(seconds, delay) for delay in (delays.first_token_seconds, delays.reply_seconds)
    )
    return HedgeDelays(first_token, reply)


def hedge_delays(calls: Sequence[Latency], *, share: float, least: int) -> HedgeDelays:
    """The delays that make `share` of these calls late, at the same quantile of both measures.

    A call may be late twice and is hedged once, so the quantile lies between 1 - share, where the same calls are slow
    in both, and about 1 - share / 2, where the two are independent. A measure of fewer than `least` calls has no delay.
    """
    first_tokens = _Measure([call.first_token for call in calls], least)
    replies = _Measure([call.reply for call in calls], least)
    allowed = int(share * len(calls))
    level = allowed // 2  # a level more makes at most two calls more late
    late = {*first_tokens.slowest(0, level, len(calls)), *replies.slowest(0, level, len(calls))}
    while level < allowed:
        late.update(first_tokens.slowest(level, level + 1, len(calls)), replies.slowest(level, level + 1, len(calls)))
        if len(late) > allowed:
            break
        level += 1
    return HedgeDelays(first_tokens.delay(level, len(calls)), replies.delay(level, len(calls)))


class _Measure:
    """The calls that one measure is known of, fastest first."""

    def __init__(self, values: Sequence[float | None], least: int) -> None:
        known = [call for call, value in enumerate(values) if value is not None]
        self._values = values
        self._order = sorted(known, key=values.__getitem__) if len(known) >= least else []  # type: ignore[arg-type]

    def slowest(self, level: int, next_level: int, of: int) -> Sequence[int]:
        """The calls that are late at `next_level` and were not at `level`. A level is a number of calls in `of`: in a
        measure that only some calls have, fewer are late at it."""
        size = len(self._order)
        return self._order[size - next_level * size // of : size - level * size // of]

    def delay(self, level: int, of: int) -> float | None:
        """The slowest time that is not late at `level`."""
        size = len(self._order)
        return self._values[self._order[size - 1 - level * size // of]] if size else None
