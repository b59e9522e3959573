"""Where calls go: the choice among the locations that are well, and how each call ends."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Literal

from llm_gateway.breaker import OPEN_SECONDS, Breaker, BreakerState, Outcome, Verdict

_EWMA_WEIGHT: Final = 0.1
# What is not called is not measured: its estimate fades, so that it looks better until it is tried again.
_FADE_SECONDS: Final = 30.0


class Call:
    """One call to a location, from `Locations.start` to the first of `succeeded`, `failed` and `cancelled`; what is
    said after that is ignored.

    It counts once, as the worst that it was: a late one that succeeds stays late. Once its location's breaker has
    opened it counts no more, as it tells of the time before.
    """

    __slots__ = ("_at", "_is_over", "_locations", "_openings", "_outcome", "is_probe")

    def __init__(self, locations: Locations, at: _Location, *, is_probe: bool) -> None:
        self._locations = locations
        self._at = at
        self._openings = at.breaker.openings
        self._outcome: Outcome | None = None
        self._is_over = False
        self.is_probe = is_probe

    @property
    def location(self) -> str:
        return self._at.name

    @property
    def is_late(self) -> bool:
        return self._outcome is not None and not self._is_over

    @property
    def is_stranded(self) -> bool:
        """It is late, and its location's breaker has opened since it was sent: it is worth another call elsewhere."""
        return self.is_late and self.is_outdated

    def late(self) -> None:
        """It has not answered by its hedge delay, and goes on."""
        if not self._is_over:
            self._count(Verdict.LATE)

    def succeeded(self, latency_seconds: float | None = None) -> None:
        """`latency_seconds` of the whole reply; None: not to be learned from."""
        if self._end():
            self._at.learn(latency_seconds, self._locations.now())
            if self._outcome is None:
                self._count(Verdict.SUCCEEDED)

    def failed(self, *, retry_after_seconds: float | None = None) -> None:
        """`retry_after_seconds` is how long the location asked not to be called. Where that is as long as its breaker
        would be open, it is obeyed and the failure of a closed breaker not counted."""
        if not self._end():
            return
        self._at.forbid(retry_after_seconds or 0.0, self._locations.now())
        is_excused = (retry_after_seconds or 0.0) >= OPEN_SECONDS and self._at.breaker.state is BreakerState.CLOSED
        if not is_excused:
            self._count(Verdict.FAILED)

    def cancelled(self) -> None:
        """It ended without a verdict: its caller is gone, or another call has answered."""
        if self._end() and self._at.breaker.probe is self:
            self._at.breaker.cancel_probe()

    @property
    def is_outdated(self) -> bool:
        """Its location's breaker has opened since it was sent."""
        return self._at.breaker.openings != self._openings

    def _end(self) -> bool:
        if self._is_over:
            return False
        self._is_over = True
        self._at.running -= 1
        return True

    def _count(self, verdict: Verdict) -> None:
        known, self._outcome = self._outcome, self._outcome or Outcome(self._locations.now(), verdict)
        if self.is_outdated:
            return
        breaker = self._at.breaker
        if known is None:
            breaker.remember(self._outcome)
        self._outcome.verdict = verdict
        if verdict is Verdict.SUCCEEDED:
            breaker.succeeded(self)
        elif breaker.opens(for_late=self._locations.alternative(avoid=(self.location,)) is not None):
            self._locations.notify()


class _Location:
    def __init__(self, name: str, breaker: Breaker) -> None:
        self.name = name
        self.breaker = breaker
        self.running = 0
        self.latency_seconds: float | None = None
        self._latency_at = 0.0
        self._forbidden_until = -math.inf

    def learn(self, latency_seconds: float | None, now: float) -> None:
        if latency_seconds is None:
            return
        known = latency_seconds if self.latency_seconds is None else self.latency_seconds
        self.latency_seconds = known + _EWMA_WEIGHT * (latency_seconds - known)
        self._latency_at = now

    def forbid(self, seconds: float, now: float) -> None:
        self._forbidden_until = max(self._forbidden_until, now + seconds)

    def wait_seconds(self, now: float) -> float:
        return max(0.0, self._forbidden_until - now)

    def is_usable(self, now: float) -> bool:
        return self.breaker.state is BreakerState.CLOSED and self._forbidden_until <= now

    def retry_at(self) -> float:
        """When it will be tried again, of one that is not usable."""
        return max(self.breaker.retry_at, self._forbidden_until)

    def estimate_seconds(self, now: float) -> float | None:
        """Its latency for the choice."""
        if self.latency_seconds is None:
            return None
        return self.latency_seconds * math.exp((self._latency_at - now) / _FADE_SECONDS)


class Locations:
    """Where to call, of the locations in order of preference."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        choice: Literal["preference", "latency"] = "preference",
        now: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`draw` is uniform from 0 to 1, 1 excluded. "latency": of two usable locations at random, the one where
        latency times calls under way is less; a latency is one moving average, over all models."""
        self.names = tuple(names)
        self.now = now
        self.watchers: set[Callable[[], None]] = set()
        self._choice = choice
        self._draw = draw
        self._locations = {name: _Location(name, Breaker(now=now, draw=draw)) for name in names}

    def choose(self, *, avoid: Collection[str] = ()) -> str:
        """Where to call now; never refuses. The best usable location outside `avoid`, or else in it; where none is
        usable, the one that would be tried again soonest, outside `avoid` if there is one."""
        now = self.now()
        usable = [location for location in self._locations.values() if location.is_usable(now)]
        if usable:
            return self._best(_outside(avoid, usable) or usable).name
        locations = self._locations.values()
        return min(_outside(avoid, locations) or locations, key=_Location.retry_at).name

    def alternative(self, *, avoid: Collection[str]) -> str | None:
        """The best usable location outside `avoid`; None where there is none."""
        now = self.now()
        usable = [location for location in _outside(avoid, self._locations.values()) if location.is_usable(now)]
        return self._best(usable).name if usable else None

    def start(self, name: str) -> Call:
        """A call is sent to the location. It is the probe where one is due, which happens where none is usable."""
        location = self._locations[name]
        return self._start(location, is_probe=location.breaker.is_probe_due())

    def start_probe(self) -> Call | None:
        """The call to send beside one to a usable location, so that nobody waits for it; None while no location is due
        for a probe, or none is usable: then calls go to where a probe is due, and are the probes."""
        now = self.now()
        due = [each for each in self._locations.values() if each.breaker.is_probe_due() and not each.wait_seconds(now)]
        if not due or not any(location.is_usable(now) for location in self._locations.values()):
            return None
        return self._start(min(due, key=_Location.retry_at), is_probe=True)

    def wait_seconds(self, name: str) -> float:
        """How long the location still asks not to be called; 0 where it does not."""
        return self._locations[name].wait_seconds(self.now())

    def state(self, name: str) -> BreakerState:
        return self._locations[name].breaker.state

    def openings(self, name: str) -> int:
        """How often its breaker has opened, since the start."""
        return self._locations[name].breaker.openings

    def latency_seconds(self, name: str) -> float | None:
        """The moving average; None before the first."""
        return self._locations[name].latency_seconds

    def running(self, name: str) -> int:
        return self._locations[name].running

    def notify(self) -> None:
        """A breaker has opened: tells `watchers`."""
        for watcher in tuple(self.watchers):
            watcher()

    def _start(self, location: _Location, *, is_probe: bool) -> Call:
        call = Call(self, location, is_probe=is_probe)
        location.running += 1
        if is_probe:
            location.breaker.start_probe(call)
        return call

    def _best(self, usable: Sequence[_Location]) -> _Location:
        if self._choice == "preference" or len(usable) == 1:
            return usable[0]
        first = int(self._draw() * len(usable))
        second = (first + 1 + int(self._draw() * (len(usable) - 1))) % len(usable)
        return _less_loaded(usable[first], usable[second], self.now())


def _less_loaded(first: _Location, second: _Location, now: float) -> _Location:
    """A latency that is not known is taken to be the other's."""
    estimates = first.estimate_seconds(now), second.estimate_seconds(now)
    assumed = next((estimate for estimate in estimates if estimate is not None), 1.0)
    loads = [
        (assumed if estimate is None else estimate) * (location.running + 1)
        for location, estimate in zip((first, second), estimates, strict=True)
    ]
    return first if loads[0] <= loads[1] else second


def _outside(avoid: Collection[str], locations: Iterable[_Location]) -> list[_Location]:
    return [location for location in locations if location.name not in avoid]
