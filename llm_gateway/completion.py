"""One reply for one request: the cache, then a call shared by all who ask the same, here and in other replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from chassis.observability import metrics
from chassis.telemetry import ADMISSION_WAIT
from llm_gateway.admission import Admission
from llm_gateway.cache import Found, ResponseCache, cache_key
from llm_gateway.catalogue import Catalogue
from llm_gateway.flights import CacheStatus, CacheTier, Completed, Flight, in_pieces
from llm_gateway.generation import CacheControl, GenerationRequest, ModelInterrupted, Overloaded, Prompt
from llm_gateway.leases import Followed, Lease
from llm_gateway.model_calls import ModelCalls
from llm_gateway.race import Listener
from llm_gateway.tokens import TokenCounter


class Completion:
    """Answers requests. Concurrent equal ones share one model call."""

    def __init__(
        self,
        calls: ModelCalls,
        cache: ResponseCache,
        admission: Admission,
        *,
        catalogue: Catalogue,
        max_input_tokens: int = 0,
        request_timeout_seconds: float = 30.0,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        """`max_input_tokens`: of any call, 0 for the model's own limit. `request_timeout_seconds`: of a refresh in the
        background."""
        self.calls = calls
        self.cache = cache
        self.admission = admission
        self._catalogue = catalogue
        self._counter = TokenCounter(calls.count_tokens)
        self._max_input_tokens = max_input_tokens
        self._request_timeout_seconds = request_timeout_seconds
        self._unix_now = unix_now
        self._flights: dict[str, Flight] = {}
        self._refreshes: set[Flight] = set()

    @property
    def default_model(self) -> str:
        return self.calls.means.backend.default_model

    async def generate(self, request: GenerationRequest, deadline: Deadline) -> Completed:
        """Raises ModelError, PromptTooLarge, Overloaded or DeadlineExceeded. Cancelling it cancels the model call,
        unless others wait for it."""
        key = cache_key(request)
        found = self._from_memory(key, request)
        if found:
            return found
        flight, joined = self._board(key, request, deadline)
        completed = await flight.join(deadline)
        return _coalesced(completed) if joined else completed

    async def stream(self, request: GenerationRequest, deadline: Deadline) -> AsyncGenerator[str | Completed, None]:
        """The text as it comes, then how it came about. Raises as `generate` does, and ModelInterrupted where the reply
        breaks off. Closing it cancels the model call, unless others wait for it."""
        key = cache_key(request)
        found = self._from_memory(key, request)
        if found:
            for text in in_pieces(found.reply.text):
                yield text
            yield found
            return
        flight, joined = self._board(key, request, deadline)
        async with aclosing(flight.stream(deadline)) as items:
            async for item in items:
                yield _coalesced(item) if joined and isinstance(item, Completed) else item

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
        """Raises ModelError or DeadlineExceeded."""
        return await self._counter.count(model, prompt, deadline)

    async def invalidate(self, *, persona: str, model: str, scope: str | None) -> bool:
        """As ResponseCache does; a call that is under way answers nobody who asks from now on."""
        self._flights.clear()
        return await self.cache.invalidate(persona=persona, model=model, scope=scope)

    async def close(self) -> None:
        """Nothing is made in the background after it."""
        for flight in tuple(self._refreshes):
            await flight.cancel()

    def _from_memory(self, key: str, request: GenerationRequest) -> Completed | None:
        if not _may_read(request):
            return None
        found = self.cache.get_near(key, max_age_seconds=request.cache.max_age_seconds)
        return None if found is None else self._found(key, request, found, CacheTier.NEAR)

    def _found(self, key: str, request: GenerationRequest, found: Found, tier: CacheTier) -> Completed:
        """A stale reply answers at once, and a new one is made in the background."""
        if found.is_stale and _may_store(request):
            self._refresh(key, replace(request, cache=CacheControl()))
        status = CacheStatus.STALE if found.is_stale else CacheStatus.HIT
        return Completed(found.reply, status, tier, age_seconds=found.age_seconds, traceparent=found.traceparent)

    def _refresh(self, key: str, request: GenerationRequest) -> None:
        name = _flight_name(key, request)
        if name in self._flights:
            return
        flight = self._flights[name] = self._new_flight(name, Deadline.after(self._request_timeout_seconds))
        self._refreshes.add(flight)
        flight.start(partial(self._fly_shared, key, request, flight, accept_stale=False))

    def _board(self, key: str, request: GenerationRequest, deadline: Deadline) -> tuple[Flight, bool]:
        """The flight to wait for, and whether it was under way."""
        name, may_share = _flight_name(key, request), _may_share(request)
        flight = self._flights.get(name) if may_share else None
        if flight is not None:
            flight.deadline.extend_to(deadline)
            self.cache.statistics.coalesced += 1
            return flight, True
        flight = self._new_flight(name, deadline.copy())
        if may_share:
            self._flights[name] = flight
        flight.start(partial(self._fly_shared if may_share else self._fly_alone, key, request, flight))
        return flight, False

    def _new_flight(self, name: str, deadline: Deadline) -> Flight:
        flight = Flight(deadline, lambda: self._land(name, flight))
        return flight

    def _land(self, name: str, flight: Flight) -> None:
        if self._flights.get(name) is flight:
            del self._flights[name]
        self._refreshes.discard(flight)

    async def _fly_alone(self, key: str, request: GenerationRequest, flight: Flight) -> Completed:
        """Beside all others, who may not have this reply; a stored one may still answer."""
        if _may_read(request):
            max_age_seconds = request.cache.max_age_seconds
            entered = await self.cache.enter(key, streamed=flight.wants_text, max_age_seconds=max_age_seconds)
            if isinstance(entered, Found):
                return self._found(key, request, entered, CacheTier.SHARED)
            if isinstance(entered, Lease):
                await entered.release()
        return await self._fly(key, request, flight, flight.deadline)

    async def _fly_shared(
        self, key: str, request: GenerationRequest, flight: Flight, *, accept_stale: bool = True
    ) -> Completed:
        """The reply that another replica has stored or is making, or one that is made here."""
        followed: Followed | None = None
        while True:
            streamed = flight.wants_text
            entered = await self.cache.enter(
                key,
                streamed=streamed,
                max_age_seconds=request.cache.max_age_seconds,
                accept_stale=accept_stale,
                after=followed,
            )
            if isinstance(entered, Found):
                self._land(_flight_name(key, request), flight)  # one that makes it anew may have to take off
                return self._found(key, request, entered, CacheTier.SHARED)
            if not isinstance(entered, Followed):
                return await self._lead(key, request, flight, entered)
            followed = entered
            completed = await self._follow(followed, flight, streamed=streamed)
            if completed:
                return completed

    async def _follow(self, followed: Followed, flight: Flight, *, streamed: bool) -> Completed | None:
        """None where this replica is to take over. Raises what the leader's call failed with."""
        if streamed:
            async for text in followed.pieces():
                flight.publish(text)
        outcome = await followed.outcome(flight.deadline)
        if isinstance(outcome, IonError):
            raise outcome
        if outcome is not None:
            return Completed(
                outcome.reply,
                CacheStatus.COALESCED,
                CacheTier.SHARED,
                age_seconds=outcome.age_seconds,
                traceparent=outcome.traceparent,
            )
        if flight.has_published:
            raise ModelInterrupted  # another call would tell it in other words
        return None

    async def _lead(self, key: str, request: GenerationRequest, flight: Flight, lease: Lease | None) -> Completed:
        """Make the reply and tell the replicas that follow; without a lease there are none."""
        if lease is None:
            return await self._fly(key, request, flight, flight.deadline)
        failure: IonError | None = None
        try:
            return await self._fly(key, request, _Told(flight, lease), flight.deadline, lease)
        except IonError as error:
            # Those who follow may have more time, or be less busy.
            failure = None if isinstance(error, DeadlineExceeded | Overloaded) else error
            raise
        finally:
            await lease.settle(failure)

    async def _fly(
        self, key: str, request: GenerationRequest, listener: Listener, deadline: Deadline, lease: Lease | None = None
    ) -> Completed:
        """Its turn, a prompt that fits, the model calls, and the reply stored."""
        made_at = self._unix_now()
        async with self.admission.admit(deadline) as queued_seconds:
            metrics.record(ADMISSION_WAIT, queued_seconds)
            asked, trimmed_turns = await self._fit(request, deadline)
            made = await self.calls.make(asked, deadline, listener)
        if _may_store(request):
            await self.cache.put(key, request, made.reply, made_at=made_at, lease=lease, traceparent=made.traceparent)
        return Completed(
            reply=made.reply,
            cache=CacheStatus.MISS if self.cache.enabled and _may_read(request) else CacheStatus.OFF,
            attempts=made.attempts,
            hedges=made.hedges,
            lost_usage=made.lost_usage,
            queued_seconds=queued_seconds,
            first_token_seconds=made.first_token_seconds,
            trimmed_turns=trimmed_turns,
            traceparent=made.traceparent,
        )

    async def _fit(self, request: GenerationRequest, deadline: Deadline) -> tuple[GenerationRequest, int]:
        """The request as the model takes it, and how many turns were left out."""
        fitted = self._catalogue.fit(request)
        limit = self._catalogue.input_limit(request.model, request.max_input_tokens, self._max_input_tokens)
        prompt, trimmed_turns = await self._counter.fit(request.model, request.prompt, limit, deadline)
        return (replace(fitted, prompt=prompt) if trimmed_turns else fitted), trimmed_turns


class _Told:
    """Those who wait here, and in the replicas that follow."""

    def __init__(self, flight: Flight, lease: Lease) -> None:
        self._flight = flight
        self._lease = lease

    @property
    def wants_text(self) -> bool:
        return self._flight.wants_text

    def publish(self, text: str) -> None:
        self._flight.publish(text)
        self._lease.publish(text)


def _holds_history(request: GenerationRequest) -> bool:
    """Somebody's conversation, and no scope that says whose: it is neither stored nor shared."""
    return len(request.prompt.turns) > 1 and not request.scope


def _may_read(request: GenerationRequest) -> bool:
    return not request.cache.bypass and not _holds_history(request)


def _may_store(request: GenerationRequest) -> bool:
    return not request.cache.no_store and not _holds_history(request)


def _may_share(request: GenerationRequest) -> bool:
    return _may_read(request) and _may_store(request)


def _flight_name(key: str, request: GenerationRequest) -> str:
    """Who asks for a reply of at most some age does not join those who take any."""
    return key if request.cache.max_age_seconds is None else f"{key} {request.cache.max_age_seconds}"


def _coalesced(completed: Completed) -> Completed:
    """As it is for who joined a call under way."""
    is_made = completed.cache in (CacheStatus.MISS, CacheStatus.OFF)
    return replace(completed, cache=CacheStatus.COALESCED if is_made else completed.cache, tier=CacheTier.FLIGHT)
