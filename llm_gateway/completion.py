"""One reply for one request: cache, then one shared model call, with the only retries there are."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeVar

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from llm_gateway.backends import Backend
from llm_gateway.cache import ResponseCache, cache_key
from llm_gateway.generation import GenerationRequest, ModelUnavailable, Prompt, Reply

MAX_ATTEMPTS: Final = 3
FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0

T = TypeVar("T")


class CacheStatus(StrEnum):
    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Completed:
    """A reply and how it came about. `attempts`: model calls made for it, 0 for a hit."""

    reply: Reply
    cache: CacheStatus
    attempts: int


class Completion:
    """Answers requests. Concurrent equal ones share one model call."""

    def __init__(self, backend: Backend, cache: ResponseCache, *, draw: Callable[[], float] = random.random) -> None:
        """`draw` gives the jitter: uniform from 0 to 1."""
        self._backend = backend
        self._cache = cache
        self._draw = draw
        self._flights: dict[str, Flight] = {}

    @property
    def default_model(self) -> str:
        return self._backend.default_model

    async def generate(self, request: GenerationRequest, deadline: Deadline) -> Completed:
        """Raises ModelError, or DeadlineExceeded. Cancelling it cancels the model call, unless others wait for it."""
        key = cache_key(request)
        near = self._cache.get_near(key)
        if near is not None:
            return Completed(near, CacheStatus.HIT, 0)
        flight = self._flights.get(key)
        if flight is None:
            return await self._take_off(key, request, deadline).join(deadline)
        flight.deadline.extend_to(deadline)
        completed = await flight.join(deadline)
        if completed.cache is CacheStatus.HIT:
            return completed
        return Completed(completed.reply, CacheStatus.COALESCED, completed.attempts)

    async def generate_batch(
        self, requests: Sequence[GenerationRequest], *, max_concurrency: int, deadline: Deadline
    ) -> list[Completed | IonError]:
        """One result or failure each, in order; at most `max_concurrency` at a time."""
        places = asyncio.Semaphore(max_concurrency)

        async def one(request: GenerationRequest) -> Completed | IonError:
            async with places:
                try:
                    return await self.generate(request, deadline)
                except IonError as error:
                    return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(request)) for request in requests]
        return [task.result() for task in tasks]

    async def count_tokens(self, model: str, prompt: Prompt, deadline: Deadline) -> int:
        """Raises as `generate` does."""

        async def attempt(location: str, timeout_seconds: float) -> int:
            return await self._backend.count_tokens(model, prompt, location=location, timeout_seconds=timeout_seconds)

        count, _ = await self._with_retries(attempt, deadline)
        return count

    def _take_off(self, key: str, request: GenerationRequest, deadline: Deadline) -> Flight:
        def land() -> None:
            if self._flights.get(key) is flight:
                del self._flights[key]

        flight = Flight(deadline.copy(), land)
        self._flights[key] = flight
        flight.start(self._fly(key, request, flight.deadline))
        return flight

    async def _fly(self, key: str, request: GenerationRequest, deadline: Deadline) -> Completed:
        shared = await self._cache.get_shared(key)
        if shared is not None:
            return Completed(shared, CacheStatus.HIT, 0)

        async def attempt(location: str, timeout_seconds: float) -> Reply:
            return await self._backend.generate(request, location=location, timeout_seconds=timeout_seconds)

        reply, attempts = await self._with_retries(attempt, deadline)
        await self._cache.put(key, reply)
        return Completed(reply, CacheStatus.MISS if self._cache.enabled else CacheStatus.OFF, attempts)

    async def _with_retries(self, attempt: Callable[[str, float], Awaitable[T]], deadline: Deadline) -> tuple[T, int]:
        """The result and how many attempts it took, each at the next location."""
        locations = self._backend.locations
        number = 0
        while True:
            remaining = deadline.remaining_seconds()
            if remaining <= 0:
                raise DeadlineExceeded
            try:
                return await attempt(locations[number % len(locations)], remaining), number + 1
            except IonError as error:
                number += 1
                pause = pause_before_retry(
                    error, number, remaining_seconds=deadline.remaining_seconds(), draw=self._draw()
                )
                if pause is None:
                    raise
            await asyncio.sleep(pause)


def pause_before_retry(error: IonError, attempts_made: int, *, remaining_seconds: float, draw: float) -> float | None:
    """Seconds to wait before another attempt, or None where there is to be none. `draw` is from 0 to 1.

    Exponential with full jitter, or what the model's service asked for where that is longer.
    """
    if not error.retryable or attempts_made >= MAX_ATTEMPTS:
        return None
    ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempts_made - 1))
    pause = max(draw * ceiling, error.retry_after_seconds or 0.0)
    return pause if pause < remaining_seconds else None


class Flight:
    """One shared call, for as long as anybody waits for it. `deadline` is that of its most patient caller."""

    def __init__(self, deadline: Deadline, on_landed: Callable[[], None]) -> None:
        self.deadline = deadline
        self._on_landed = on_landed
        self._waiters = 0
        self._task: asyncio.Task[Completed | IonError] | None = None

    def start(self, work: Awaitable[Completed]) -> None:
        self._task = asyncio.get_running_loop().create_task(_settled(work))
        self._task.add_done_callback(lambda _: self._on_landed())

    async def join(self, deadline: Deadline) -> Completed:
        """Wait within `deadline`; whoever leaves last cancels the call."""
        assert self._task  # noqa: S101 - started by whoever made it
        self._waiters += 1
        try:
            await asyncio.wait((self._task,), timeout=deadline.remaining_seconds())
        finally:
            self._waiters -= 1
            if not self._waiters and not self._task.done():
                self._on_landed()  # nobody may join a call that is being cancelled
                self._task.cancel()
        if not self._task.done():
            raise DeadlineExceeded
        if self._task.cancelled():
            raise ModelUnavailable  # by what is below: those who wait were not cancelled, and need an answer
        outcome = self._task.result()
        if isinstance(outcome, IonError):
            raise outcome.with_traceback(None)  # shared by all who wait: each starts a traceback of its own
        return outcome


async def _settled(work: Awaitable[Completed]) -> Completed | IonError:
    try:
        return await work
    except IonError as error:
        return error
