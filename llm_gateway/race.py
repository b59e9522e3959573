"""The race for one reply: the first call, and the retries and hedges that may follow it (docs/adr/0008)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from llm_gateway.backends import Backend
from llm_gateway.budgets import RatioBudget, RequestBudget
from llm_gateway.generation import GenerationRequest, ModelInterrupted, ModelUnavailable, Reply, Usage
from llm_gateway.latencies import HedgeDelays, Latencies
from llm_gateway.locations import Call, Locations
from llm_gateway.spending import Ledger
from llm_gateway.tokens import estimate_prompt_tokens, estimate_tokens

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0


class HedgeMode(StrEnum):
    """What a call is hedged on: nothing, a late reply, or a late first token as well, for which unary calls too are
    streamed from the model."""

    OFF = "off"
    REPLY = "reply"
    FIRST_TOKEN = "first-token"  # noqa: S105 - of a model


class Kind(StrEnum):
    FIRST = "first"
    RETRY = "retry"
    HEDGE = "hedge"
    PROBE = "probe"  # beside the first, to see whether a location whose breaker is open answers again


class Listener(Protocol):
    """Who waits for the reply."""

    @property
    def wants_text(self) -> bool: ...

    def publish(self, text: str) -> None:
        """The next text of the reply; from then on the reply is that of this call, or none."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """A reply and what it took; as in Completed."""

    reply: Reply
    attempts: int
    hedges: int
    lost_usage: Usage
    first_token_seconds: float | None


@dataclass(slots=True)
class CallStatistics:
    """Counts since the start."""

    calls: int = 0
    hedges: int = 0
    hedges_won: int = 0
    hedges_denied: int = 0
    retries: int = 0
    retries_denied: int = 0


class Means:
    """What all races share: where calls go, what they may cost, and what is counted. `draw` gives the jitter: uniform
    from 0 to 1."""

    def __init__(
        self,
        backend: Backend,
        locations: Locations,
        *,
        ledger: Ledger | None = None,
        hedge_mode: HedgeMode = HedgeMode.FIRST_TOKEN,
        max_tokens_per_request: int = 0,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.backend = backend
        self.locations = locations
        self.hedge_mode = hedge_mode
        self.max_tokens_per_request = max_tokens_per_request
        self.draw = draw
        self.latencies = Latencies()
        self.retry_budget = RatioBudget()
        self.hedge_budget = RatioBudget(floor=1)
        self.ledger = ledger or Ledger()
        self.statistics = CallStatistics()
        self.probes: set[asyncio.Task[None]] = set()


@dataclass(slots=True, eq=False)
class Attempt:
    """One call to the model. `give_up_at`: when one that has shown nothing is given up for another location."""

    kind: Kind
    call: Call
    started_at: float
    give_up_at: float
    task: asyncio.Task[None] | None = None
    texts: list[str] = field(default_factory=list)
    first_text_at: float | None = None
    outcome: Reply | Exception | None = None
    is_settled: bool = False

    @property
    def is_running(self) -> bool:
        return self.outcome is None and not self.is_settled

    def late_at(self, delays: HedgeDelays, *, streamed: bool) -> float | None:
        """When it is late by what shows now; None where that cannot be said."""
        waits = [delays.reply_seconds, delays.first_token_seconds if streamed and self.first_text_at is None else None]
        return min((self.started_at + wait for wait in waits if wait is not None), default=None)


class Race:
    """The attempts at one reply: the first complete one wins, or, for a stream, the first to show text."""

    def __init__(self, means: Means, request: GenerationRequest, deadline: Deadline, listener: Listener) -> None:
        self._means = means
        self._request = request
        self._deadline = deadline
        self._listener = listener
        self._delays = means.latencies.delays(request.model)
        self._may_hedge = request.may_hedge and means.hedge_mode is not HedgeMode.OFF
        self._streamed = listener.wants_text or (self._may_hedge and means.hedge_mode is HedgeMode.FIRST_TOKEN)
        self._input_tokens = estimate_prompt_tokens(request.prompt)
        self._budget = RequestBudget(input_tokens=means.max_tokens_per_request)
        self._attempts: list[Attempt] = []
        self._committed: Attempt | None = None
        self._retry_at: float | None = None
        self._wake = asyncio.Event()

    async def run(self) -> Made:
        self._means.locations.watchers.add(self._wake.set)
        winner: Attempt | None = None
        try:
            self._launch_first()
            while True:
                self._wake.clear()
                winner = self._winner()
                if winner is not None:
                    break
                self._act(time.monotonic())
                await self._wait()
            return self._made(winner)
        finally:
            self._means.locations.watchers.discard(self._wake.set)
            self._settle(winner)

    # What to do next

    def _winner(self) -> Attempt | None:
        return next((attempt for attempt in self._attempts if isinstance(attempt.outcome, Reply)), None)

    def _act(self, now: float) -> None:
        if self._deadline.remaining_seconds() <= 0:
            raise DeadlineExceeded
        for attempt in self._attempts:
            if isinstance(attempt.outcome, Exception) and not attempt.is_settled:
                self._fail(attempt, attempt.outcome, now)
        if self._committed:
            return
        locations = self._means.locations
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._launch(Kind.RETRY, locations.start(locations.choose(avoid=self._tried)))
        for attempt in self._running():
            self._watch(attempt, now)

    def _watch(self, attempt: Attempt, now: float) -> None:
        late_at = attempt.late_at(self._delays, streamed=self._streamed)
        if not attempt.call.is_late and late_at is not None and now >= late_at:
            attempt.call.late()
            if attempt.kind is not Kind.PROBE:
                self._hedge()
        is_stranded = attempt.call.is_stranded and len(self._running()) == 1
        if attempt.first_text_at is None and (is_stranded or now >= attempt.give_up_at):
            self._move(attempt, timed_out=not is_stranded)

    def _hedge(self) -> None:
        """A second call elsewhere, once a request, where there is a healthy location and budget for it."""
        elsewhere = self._means.locations.alternative(avoid=self._tried)
        if not self._may_hedge or elsewhere is None or any(attempt.kind is Kind.HEDGE for attempt in self._attempts):
            return
        if not self._budget.may_attempt(self._input_tokens):
            return
        if self._means.hedge_budget.withdraw():
            self._launch(Kind.HEDGE, self._means.locations.start(elsewhere))
        else:
            self._means.statistics.hedges_denied += 1

    def _move(self, attempt: Attempt, *, timed_out: bool) -> None:
        """Give up a call that has shown nothing for one elsewhere; where there can be none, go on waiting for it."""
        attempt.give_up_at = float("inf")
        elsewhere = self._means.locations.alternative(avoid=self._tried)
        if elsewhere is None or not self._may_retry():
            return
        if timed_out:
            attempt.call.failed()
        self._stop(attempt)
        self._launch(Kind.RETRY, self._means.locations.start(elsewhere))

    def _fail(self, attempt: Attempt, error: Exception, now: float) -> None:
        """Raises it where nothing can be tried any more; otherwise another attempt is under way, or planned."""
        self._note_failure(attempt, error)
        if not isinstance(error, IonError):
            raise error
        if attempt is self._committed:
            raise (ModelInterrupted() if error.retryable and not isinstance(error, DeadlineExceeded) else error)
        if not error.retryable or isinstance(error, DeadlineExceeded):
            raise error
        if self._running() or self._retry_at is not None:
            return
        pause = self._pause(error)
        if pause is None or not self._may_retry():
            raise error
        self._retry_at = now + pause

    def _pause(self, error: IonError) -> float | None:
        """None at a location that has not been tried, where there is a healthy one."""
        if self._means.locations.alternative(avoid=self._tried) is not None:
            return 0.0
        return pause_before_retry(error, self._deadline.remaining_seconds(), len(self._attempts), self._means.draw())

    def _may_retry(self) -> bool:
        if not self._budget.may_attempt(self._input_tokens):
            return False
        if self._means.retry_budget.withdraw():
            return True
        self._means.statistics.retries_denied += 1
        return False

    async def _wait(self) -> None:
        """Until an attempt has news, a breaker opens, or something is due."""
        remaining = self._deadline.remaining_seconds()
        due_in = min((at - time.monotonic() for at in self._due()), default=remaining)
        timer = asyncio.get_running_loop().call_later(max(0.0, min(due_in, remaining)), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _due(self) -> list[float]:
        if self._committed:
            return []
        due = [] if self._retry_at is None else [self._retry_at]
        for attempt in self._running():
            late_at = None if attempt.call.is_late else attempt.late_at(self._delays, streamed=self._streamed)
            due += [] if late_at is None else [late_at]
            due += [attempt.give_up_at] if attempt.first_text_at is None else []
        return due

    # Attempts

    @property
    def _tried(self) -> set[str]:
        return {attempt.call.location for attempt in self._attempts}

    def _running(self) -> list[Attempt]:
        return [attempt for attempt in self._attempts if attempt.is_running]

    def _launch_first(self) -> None:
        locations = self._means.locations
        probe = locations.start_probe()
        if probe is None:
            self._launch(Kind.FIRST, locations.start(locations.choose()))
        elif self._may_hedge and self._means.hedge_budget.withdraw():
            self._launch(Kind.FIRST, locations.start(locations.choose()))
            self._launch(Kind.PROBE, probe)
        else:
            self._launch(Kind.FIRST, probe)

    def _launch(self, kind: Kind, call: Call) -> None:
        now = time.monotonic()
        attempt = Attempt(kind, call, now, give_up_at=now + self._deadline.remaining_seconds() / 2)
        self._attempts.append(attempt)
        self._budget.took(self._input_tokens)
        self._count(kind)
        attempt.task = asyncio.get_running_loop().create_task(self._drive(attempt))

    def _count(self, kind: Kind) -> None:
        statistics = self._means.statistics
        statistics.calls += 1
        statistics.hedges += kind in (Kind.HEDGE, Kind.PROBE)
        statistics.retries += kind is Kind.RETRY

    async def _drive(self, attempt: Attempt) -> None:
        """One call to its end, which it leaves in `attempt.outcome`."""
        try:
            attempt.outcome = await self._ask(attempt)
        except asyncio.CancelledError:
            attempt.outcome = ModelUnavailable()  # read only where nobody here has cancelled it
            raise
        except Exception as error:
            attempt.outcome = error
        finally:
            self._wake.set()

    async def _ask(self, attempt: Attempt) -> Reply:
        backend, location = self._means.backend, attempt.call.location
        remaining = self._deadline.remaining_seconds()
        if not self._streamed:
            return await backend.generate(self._request, location=location, timeout_seconds=remaining)
        reply: Reply | None = None
        async with aclosing(backend.stream(self._request, location=location, timeout_seconds=remaining)) as items:
            async for item in items:
                if isinstance(item, Reply):
                    reply = item
                else:
                    self._show(attempt, item)
        if reply is None:
            raise ModelInterrupted
        return reply

    def _show(self, attempt: Attempt, text: str) -> None:
        if attempt.first_text_at is None:
            attempt.first_text_at = time.monotonic()
            self._wake.set()
        attempt.texts.append(text)
        if attempt is self._committed:
            self._listener.publish(text)
        elif self._committed is None and self._listener.wants_text:
            self._commit(attempt)

    def _commit(self, attempt: Attempt) -> None:
        """Its text is being read: the reply is that of this call, or none."""
        self._committed = attempt
        self._listener.publish("".join(attempt.texts))
        for other in self._running():
            if other is not attempt:
                self._lose(other)

    # Ends

    def _note_failure(self, attempt: Attempt, error: Exception) -> None:
        attempt.is_settled = True
        if isinstance(error, DeadlineExceeded) or not isinstance(error, IonError) or not error.retryable:
            attempt.call.cancelled()  # the caller's haste, or the request itself: no fault of the location
        else:
            attempt.call.failed(retry_after_seconds=error.retry_after_seconds)

    def _settle(self, winner: Attempt | None) -> None:
        """No call outlives the race, but for a probe that has lost it: it is to find out how its location does."""
        for attempt in self._attempts:
            if attempt is winner:
                attempt.is_settled = True
                attempt.call.succeeded(time.monotonic() - attempt.started_at)
                self._learn(attempt)
            elif attempt.is_running and winner:
                self._lose(attempt)
            elif attempt.is_running:
                self._stop(attempt)
            elif not attempt.is_settled and isinstance(attempt.outcome, Exception):
                self._note_failure(attempt, attempt.outcome)
        if winner is None:
            self._means.ledger.add(self._request.persona, self._request.model, Usage(), self._lost(None), replies=0)

    def _lose(self, attempt: Attempt) -> None:
        self._learn(attempt)
        if attempt.kind is not Kind.PROBE or attempt.task is None:
            self._stop(attempt)
            return
        attempt.is_settled = True
        self._means.probes.add(attempt.task)
        attempt.task.add_done_callback(lambda task: self._end_probe(attempt, task))

    def _end_probe(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        self._means.probes.discard(task)
        if isinstance(attempt.outcome, Reply):
            attempt.call.succeeded(None)
        elif attempt.outcome is not None:
            self._note_failure(attempt, attempt.outcome)

    def _stop(self, attempt: Attempt) -> None:
        attempt.is_settled = True
        attempt.call.cancelled()
        if attempt.task:
            attempt.task.cancel()

    def _learn(self, attempt: Attempt) -> None:
        """From first calls alone, since only they are as all calls would be. One that a hedge has beaten is at least as
        slow as shows."""
        if attempt.kind is not Kind.FIRST:
            return
        elapsed = time.monotonic() - attempt.started_at
        first_token = None if attempt.first_text_at is None else attempt.first_text_at - attempt.started_at
        if not isinstance(attempt.outcome, Reply):
            if not attempt.call.is_late:
                return
            first_token = first_token or max(elapsed, self._delays.first_token_seconds or 0.0)
            elapsed = max(elapsed, self._delays.reply_seconds or 0.0)
        self._means.latencies.add(
            self._request.model,
            first_token_seconds=first_token if self._streamed else None,
            reply_seconds=elapsed,
        )

    def _made(self, winner: Attempt) -> Made:
        assert isinstance(winner.outcome, Reply)  # noqa: S101 - what made it the winner
        reply = winner.outcome
        hedges = sum(attempt.kind in (Kind.HEDGE, Kind.PROBE) for attempt in self._attempts)
        self._means.statistics.hedges_won += winner.kind in (Kind.HEDGE, Kind.PROBE)
        lost = self._lost(winner)
        self._means.ledger.add(self._request.persona, self._request.model, reply.usage, lost)
        first_text_at = winner.first_text_at
        return Made(
            reply=reply,
            attempts=len(self._attempts),
            hedges=hedges,
            lost_usage=lost,
            first_token_seconds=None if first_text_at is None else first_text_at - winner.started_at,
        )

    def _lost(self, winner: Attempt | None) -> Usage:
        """What the calls that were not used have cost: they read the same prompt, and wrote what they had shown. One
        that failed before it showed anything cost nothing."""
        input_tokens = (
            winner.outcome.usage.input_tokens if winner and isinstance(winner.outcome, Reply) else self._input_tokens
        )
        lost = Usage()
        for attempt in self._attempts:
            if attempt is not winner and (attempt.texts or not isinstance(attempt.outcome, Exception)):
                lost += Usage(input_tokens, estimate_tokens("".join(attempt.texts)))
        return lost


def pause_before_retry(error: IonError, remaining_seconds: float, attempts_made: int, draw: float) -> float | None:
    """Seconds to wait before another attempt, or None where none would help or fit. `draw` is from 0 to 1.

    Exponential with full jitter, or what the model's service asked for where that is longer.
    """
    if not error.retryable:
        return None
    ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempts_made - 1))
    pause = max(draw * ceiling, error.retry_after_seconds or 0.0)
    return pause if pause < remaining_seconds else None
