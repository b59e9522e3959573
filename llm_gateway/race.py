"""The race for one reply: the first call, and the retries and hedges that may follow it (docs/adr/0008)."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from llm_gateway.attempt_telemetry import AttemptTelemetry
from llm_gateway.attempts import Attempt, Ending, Kind, pause_before_retry
from llm_gateway.budgets import RequestBudget
from llm_gateway.generation import NO_USAGE, GenerationRequest, ModelInterrupted, ModelUnavailable, Reply, Usage
from llm_gateway.locations import Call
from llm_gateway.means import HedgeMode, Means
from llm_gateway.tokens import estimate_prompt_tokens

MAX_RETRIES: Final = 2
# Another call with less time would not be answered.
LEAST_SECONDS: Final = 0.010
STREAMED_SHARE: Final = 0.1


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
    traceparent: str = ""


class Race:
    """The attempts at one reply: the first complete one wins, or, for a stream, the first to show text."""

    def __init__(self, means: Means, request: GenerationRequest, deadline: Deadline, listener: Listener) -> None:
        self._means = means
        self._request = request
        self._deadline = deadline
        self._listener = listener
        self._delays = means.latencies.delays(request.model)
        self._may_hedge = request.may_hedge and means.hedge_mode is not HedgeMode.OFF
        self._streamed = listener.wants_text or self._is_worth_streaming()
        self._input_tokens = estimate_prompt_tokens(request.prompt)
        self._telemetry = AttemptTelemetry(means, request, streamed=self._streamed)
        self._budget = RequestBudget(input_tokens=means.max_tokens_per_request)
        self._attempts: list[Attempt] = []
        self._lost: list[Attempt] = []
        self._committed: Attempt | None = None
        self._retry_at: float | None = None
        self._wake = asyncio.Event()

    def _is_worth_streaming(self) -> bool:
        """For its first token alone: streaming costs half of a unary call's CPU again. Where first tokens tell nothing
        some calls are still streamed, to see whether they come to."""
        if not self._may_hedge or self._means.hedge_mode is not HedgeMode.FIRST_TOKEN:
            return False
        return self._delays.first_token_tells or self._means.draw() < STREAMED_SHARE

    async def run(self) -> Made:
        """Raises as ModelCalls.make does."""
        self._check_deadline()
        self._means.locations.watchers.add(self._wake.set)
        winner: Attempt | None = None
        try:
            self._launch_first()
            while (winner := self._winner()) is None:
                self._wake.clear()
                self._act(time.monotonic())
                await self._wait()
        finally:
            self._means.locations.watchers.discard(self._wake.set)
            self._settle(winner)
        return self._made(winner)

    # What to do next

    def _winner(self) -> Attempt | None:
        entrants = (attempt for attempt in self._attempts if not attempt.is_settled)
        return next((attempt for attempt in entrants if isinstance(attempt.outcome, Reply)), None)

    def _check_deadline(self) -> None:
        if self._deadline.remaining_seconds() <= 0:
            raise DeadlineExceeded

    def _act(self, now: float) -> None:
        self._check_deadline()
        for attempt in self._attempts:
            if isinstance(attempt.outcome, Exception) and not attempt.is_settled:
                self._fail(attempt, attempt.outcome, now)
        if self._committed:
            return
        if self._retry_at is not None and now >= self._retry_at:
            self._retry_at = None
            self._launch(Kind.RETRY, self._means.locations.start(self._means.locations.choose(avoid=self._tried)))
        for attempt in self._running():
            self._watch(attempt, now)

    def _watch(self, attempt: Attempt, now: float) -> None:
        late_at = attempt.late_at(self._delays, streamed=self._streamed)
        if late_at is not None and now >= late_at:
            attempt.call.late()
            if attempt.kind is not Kind.PROBE:
                self._hedge()
        give_up_at = attempt.give_up_at(self._deadline_at(now))
        if give_up_at is None:
            return
        is_stranded = attempt.call.is_stranded and len(self._running()) == 1
        if is_stranded or now >= give_up_at:
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
        attempt.may_move = False
        elsewhere = self._means.locations.alternative(avoid=self._tried)
        if elsewhere is None or not self._may_retry(attempt):
            return
        self._learn(attempt)
        if timed_out:
            attempt.call.failed()
        self._stop(attempt, Ending.FAILED if timed_out else Ending.LOST)
        self._launch(Kind.RETRY, self._means.locations.start(elsewhere))

    def _fail(self, attempt: Attempt, error: Exception, now: float) -> None:
        """Raises where nothing can be tried any more; otherwise another attempt is under way, or planned."""
        self._note_failure(attempt, error)
        if attempt is self._committed:
            self._break_off(error)
        if self._committed or (attempt.kind.is_extra and self._has_another()):
            return
        if not isinstance(error, IonError) or not error.retryable or self._remaining_seconds() < LEAST_SECONDS:
            raise error
        if not self._has_another():
            self._plan_retry(attempt, error, now)

    def _plan_retry(self, failed: Attempt, error: IonError, now: float) -> None:
        pause = self._pause()
        if pause is not None and self._may_retry(failed):
            self._retry_at = now + pause
        elif not self._running():  # not even a probe
            raise error

    def _break_off(self, error: Exception) -> NoReturn:
        """Raises what the reader of a text is told."""
        is_over = isinstance(error, DeadlineExceeded) and self._remaining_seconds() < LEAST_SECONDS
        if isinstance(error, IonError) and error.retryable and not is_over:
            raise ModelInterrupted from error
        raise error

    def _pause(self) -> float | None:
        """None at a location that has not been tried, where there is a healthy one."""
        locations = self._means.locations
        if locations.alternative(avoid=self._tried) is not None:
            return 0.0
        wish_seconds = locations.wait_seconds(locations.choose(avoid=self._tried))
        return pause_before_retry(wish_seconds, self._remaining_seconds(), len(self._attempts), self._means.draw())

    def _may_retry(self, failed: Attempt) -> bool:
        retries = sum(attempt.kind is Kind.RETRY for attempt in self._attempts)
        if retries >= MAX_RETRIES or not self._budget.may_attempt(self._input_tokens):
            return False
        if self._is_stray(failed) or self._means.retry_budget.withdraw():
            return True
        self._means.statistics.retries_denied += 1
        return False

    def _is_stray(self, failed: Attempt) -> bool:
        """Sent before its location's breaker opened, and a healthy one is there: the breaker itself bounds how many
        such calls there are, and each may go on, whatever the budget."""
        return failed.call.is_outdated and self._means.locations.alternative(avoid=self._tried) is not None

    def _has_another(self) -> bool:
        """Whether a call to a healthy location is under way or planned."""
        return self._retry_at is not None or any(attempt.kind is not Kind.PROBE for attempt in self._running())

    async def _wait(self) -> None:
        """Until an attempt has news, a breaker opens, or something is due."""
        now = time.monotonic()
        due_at = min([self._deadline_at(now), *self._due(now)])
        timer = asyncio.get_running_loop().call_later(max(0.0, due_at - now), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _due(self, now: float) -> list[float]:
        if self._committed:
            return []
        due = [self._retry_at]
        for attempt in self._running():
            due += [
                attempt.late_at(self._delays, streamed=self._streamed),
                attempt.give_up_at(self._deadline_at(now)),
            ]
        return [at for at in due if at is not None]

    # Attempts

    @property
    def _tried(self) -> set[str]:
        return {attempt.call.location for attempt in self._attempts}

    def _running(self) -> list[Attempt]:
        return [attempt for attempt in self._attempts if attempt.is_running]

    def _remaining_seconds(self) -> float:
        return self._deadline.remaining_seconds()

    def _deadline_at(self, now: float) -> float:
        """As it is now: a more patient caller may move it."""
        return now + self._remaining_seconds()

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
        span = self._telemetry.begin(kind, call.location)
        attempt = Attempt(kind, call, span, started_at=now, ends_at=self._deadline_at(now))
        self._attempts.append(attempt)
        self._budget.took(self._input_tokens)
        self._means.statistics.attempts[kind, call.location] += 1
        attempt.task = asyncio.get_running_loop().create_task(self._drive(attempt))

    async def _drive(self, attempt: Attempt) -> None:
        """One call to its end, which it leaves in `attempt.outcome`."""
        attempt.span.enter()
        try:
            attempt.outcome = await self._ask(attempt)
        except asyncio.CancelledError:
            if not attempt.is_settled:  # by what is below
                attempt.outcome = ModelUnavailable()
            raise
        except Exception as error:
            attempt.outcome = error
        finally:
            self._wake.set()

    async def _ask(self, attempt: Attempt) -> Reply:
        backend, location, timeout_seconds = self._means.backend, attempt.call.location, self._remaining_seconds()
        if not self._streamed:
            return await backend.generate(self._request, location=location, timeout_seconds=timeout_seconds)
        reply: Reply | None = None
        async with aclosing(backend.stream(self._request, location=location, timeout_seconds=timeout_seconds)) as items:
            async for item in items:
                if isinstance(item, Reply):
                    reply = item
                elif not attempt.is_settled:
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
        elif self._listener.wants_text and self._committed is None and self._winner() is None:
            self._commit(attempt)

    def _commit(self, attempt: Attempt) -> None:
        """Its text is being read: the reply is that of this call, or none."""
        self._committed = attempt
        self._listener.publish("".join(attempt.texts))
        for other in self._running():
            if other is not attempt:
                self._lose(other)

    # Ends

    def _end(self, attempt: Attempt, ending: Ending) -> None:
        attempt.is_settled = True
        if attempt.kind.is_extra:
            self._means.statistics.hedges_won += ending is Ending.WON
            self._means.statistics.hedges_lost += ending is not Ending.WON
        self._telemetry.end(attempt, ending)

    def _note_failure(self, attempt: Attempt, error: Exception) -> None:
        self._end(attempt, Ending.FAILED)
        self._lost.append(attempt)
        if _is_fault_of_location(error, attempt):
            attempt.call.failed(retry_after_seconds=error.retry_after_seconds if isinstance(error, IonError) else None)
        else:
            attempt.call.cancelled()

    def _settle(self, winner: Attempt | None) -> None:
        """No call outlives the race, but for a probe that has lost it: it is to find out how its location does."""
        for attempt in self._attempts:
            if attempt.is_settled:
                continue
            if isinstance(attempt.outcome, Reply):
                self._note_reply(attempt, is_used=attempt is winner)
            elif attempt.outcome is not None:
                self._note_failure(attempt, attempt.outcome)
            elif winner:
                self._lose(attempt)
            else:
                self._stop(attempt, Ending.CANCELLED if self._remaining_seconds() > 0 else Ending.FAILED)
        if winner is None:
            self._means.ledger.add(self._request.persona, self._request.model, NO_USAGE, self._lost_usage(), replies=0)

    def _note_reply(self, attempt: Attempt, *, is_used: bool) -> None:
        self._end(attempt, Ending.WON if is_used else Ending.LOST)
        attempt.call.succeeded(time.monotonic() - attempt.started_at)
        self._learn(attempt)
        if not is_used:
            self._lost.append(attempt)

    def _lose(self, attempt: Attempt) -> None:
        self._learn(attempt)
        if attempt.kind is not Kind.PROBE or attempt.task is None:
            self._stop(attempt, Ending.LOST)
            return
        attempt.is_settled = True
        self._means.probes.add(attempt.task)
        attempt.task.add_done_callback(lambda task: self._end_probe(attempt, task))
        if self._delays.reply_seconds is not None:
            late_in = attempt.started_at + self._delays.reply_seconds - time.monotonic()
            asyncio.get_running_loop().call_later(max(0.0, late_in), attempt.call.late)

    def _end_probe(self, attempt: Attempt, task: asyncio.Task[None]) -> None:
        self._means.probes.discard(task)
        if isinstance(attempt.outcome, Reply):
            attempt.call.succeeded()
        elif attempt.outcome is not None and _is_fault_of_location(attempt.outcome, attempt):
            attempt.call.failed()
        else:
            attempt.call.cancelled()
        self._end(attempt, _ending_of_lost(attempt))
        spent = attempt.spent(self._input_tokens)
        self._means.ledger.add(self._request.persona, self._request.model, NO_USAGE, spent, replies=0)

    def _stop(self, attempt: Attempt, ending: Ending) -> None:
        self._end(attempt, ending)
        self._lost.append(attempt)
        attempt.call.cancelled()
        if attempt.task:
            attempt.task.cancel()

    def _learn(self, attempt: Attempt) -> None:
        """From first calls alone, since only they are as all calls would be. One that a hedge has beaten is at least as
        slow as shows, and its reply, of a stream, among the slowest."""
        if attempt.kind is not Kind.FIRST:
            return
        first_token, elapsed = attempt.first_token_seconds, time.monotonic() - attempt.started_at
        if not isinstance(attempt.outcome, Reply):
            if not attempt.call.is_late:
                return
            if first_token is None:
                first_token = max(elapsed, self._delays.first_token_seconds or 0.0)
            # Of two measures the same calls have to be the slowest: else each would have late calls of its own.
            whole_time = attempt.ends_at - attempt.started_at if self._streamed else 0.0
            elapsed = max(elapsed, self._delays.reply_seconds or 0.0, whole_time)
        self._means.latencies.add(
            self._request.model,
            first_token_seconds=first_token if self._streamed else None,
            reply_seconds=elapsed,
        )

    def _made(self, winner: Attempt) -> Made:
        assert isinstance(winner.outcome, Reply)  # noqa: S101 - what made it the winner
        reply = winner.outcome
        lost_usage = self._lost_usage(reply.usage.input_tokens)
        if not reply.offline:
            self._means.ledger.add(self._request.persona, self._request.model, reply.usage, lost_usage)
        return Made(
            reply=reply,
            attempts=len(self._attempts),
            hedges=sum(attempt.kind.is_extra for attempt in self._attempts),
            lost_usage=lost_usage,
            first_token_seconds=winner.first_token_seconds,
            traceparent=winner.span.sampled_traceparent,
        )

    def _lost_usage(self, input_tokens: int | None = None) -> Usage:
        """Of the calls that were not used, but for a probe that goes on: all read the same prompt."""
        known = self._input_tokens if input_tokens is None else input_tokens
        return sum((attempt.spent(known) for attempt in self._lost), NO_USAGE)


def _is_fault_of_location(error: Exception, attempt: Attempt) -> bool:
    """Rather than of the request itself, of ION, or of a caller in haste."""
    if isinstance(error, DeadlineExceeded):
        return time.monotonic() < attempt.ends_at - LEAST_SECONDS  # the service's own timeout
    return isinstance(error, IonError) and error.retryable


def _ending_of_lost(attempt: Attempt) -> Ending:
    """Of a probe that goes on when the race is over."""
    if isinstance(attempt.outcome, Reply):
        return Ending.LOST
    return Ending.CANCELLED if attempt.outcome is None else Ending.FAILED
