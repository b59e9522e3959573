"""Races on a track: a backend with locations, delays as if learned, and a reader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from chassis.deadline import Deadline
from llm_gateway.breaker import BreakerState
from llm_gateway.budgets import RatioBudget
from llm_gateway.latencies import Latencies
from llm_gateway.locations import Call, Locations
from llm_gateway.means import HedgeMode, Means
from llm_gateway.race import Made, Race
from tests.llm_gateway.scripted_backend import ScriptedBackend, asking, soon, until

AT_ONCE, NEVER = 0.001, 60.0
NOTHING = RatioBudget(share=0.0, floor=0)


class RecordedLocations(Locations):
    """Remembers its calls."""

    def __init__(self, names: tuple[str, ...], now: Callable[[], float]) -> None:
        super().__init__(names, now=now, draw=lambda: 1.0)
        self.calls: list[Call] = []

    def _start(self, location, *, is_probe):
        self.calls.append(super()._start(location, is_probe=is_probe))
        return self.calls[-1]

    def open(self, name: str) -> None:
        for _ in range(10):
            self.start(name).failed()
        assert self.state(name) is BreakerState.OPEN
        self.calls.clear()


class RecordedLatencies(Latencies):
    """Remembers what it was taught."""

    def __init__(self) -> None:
        super().__init__()
        self.added: list[tuple[float | None, float | None]] = []

    def add(self, model, *, first_token_seconds, reply_seconds):
        self.added.append((first_token_seconds, reply_seconds))
        super().add(model, first_token_seconds=first_token_seconds, reply_seconds=reply_seconds)


class Reader:
    """A listener; a stream where it wants text."""

    def __init__(self, *, wants_text: bool = False) -> None:
        self.wants_text = wants_text
        self.texts: list[str] = []

    def publish(self, text: str) -> None:
        self.texts.append(text)


class Remaining(Deadline):
    """A deadline that does not come nearer by itself."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def remaining_seconds(self) -> float:
        return self.seconds


class Track:
    """Where races are run: a backend with locations, and delays as if learned."""

    def __init__(self, *locations: str, mode: HedgeMode = HedgeMode.FIRST_TOKEN, max_tokens: int = 0) -> None:
        self.at = 1000.0
        self.backend = ScriptedBackend(locations=locations or ("a", "b"))
        self.locations = RecordedLocations(self.backend.locations, lambda: self.at)
        self.means = Means(
            self.backend, self.locations, hedge_mode=mode, max_tokens_per_request=max_tokens, draw=lambda: 0.0
        )
        self.latencies = self.means.latencies = RecordedLatencies()
        self.statistics = self.means.statistics

    def learned(self, *, first_token: float | None = NEVER, reply: float | None = NEVER) -> None:
        for _ in range(50):
            self.latencies.add("model-a", first_token_seconds=first_token, reply_seconds=reply)
        self.latencies.added.clear()

    def race(self, reader: Reader | None = None, *, deadline: Deadline | None = None, **fields) -> asyncio.Task[Made]:
        race = Race(self.means, asking(**fields), deadline or soon(), reader or Reader())
        return asyncio.create_task(race.run())

    async def asked(self, count: int) -> None:
        await until(lambda: len(self.backend.calls) == count)

    async def late(self, count: int = 1) -> None:
        """So many calls are late, and the race has done about it whatever it does."""
        await until(lambda: sum(call.is_late for call in self.locations.calls) == count)

    def running(self) -> dict[str, int]:
        return {name: self.locations.running(name) for name in self.locations.names}


@pytest.fixture
async def new() -> AsyncIterator[type[Track]]:
    """Makes tracks. However their races end, no call is counted as running, and none listens for breakers."""
    made: list[Track] = []

    def make(*locations, **options):
        made.append(Track(*locations, **options))
        return made[-1]

    yield make
    for track in made:
        await until(lambda track=track: not any(track.running().values()))
        assert track.locations.watchers == set()
        assert track.means.probes == set()


def probing(new, *locations, **options) -> Track:
    """The breaker of "a" is open, and a probe is due."""
    track = new(*locations, **options)
    track.means.hedge_budget = RatioBudget(floor=10)
    track.locations.open("a")
    track.at += 10
    return track
