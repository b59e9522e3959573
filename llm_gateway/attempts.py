"""One call to the model among those behind a reply, and the pause before the next."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chassis.errors import DeadlineExceeded
from chassis.observability.tracing import Span
from llm_gateway.generation import NO_USAGE, Reply, Usage
from llm_gateway.latencies import HedgeDelays
from llm_gateway.locations import Call
from llm_gateway.tokens import estimate_tokens

FIRST_PAUSE_SECONDS: Final = 0.05
LONGEST_PAUSE_SECONDS: Final = 1.0


class Kind(StrEnum):
    FIRST = "first"
    RETRY = "retry"
    HEDGE = "hedge"
    PROBE = "probe"  # beside the first, to see whether a location whose breaker is open answers again

    @property
    def is_extra(self) -> bool:
        """Whether it runs beside a call that could do without it."""
        return self in (Kind.HEDGE, Kind.PROBE)


class Ending(StrEnum):
    """How a call ends, seen from the reply."""

    WON = "won"  # its reply is the answer
    LOST = "lost"  # another's was
    FAILED = "failed"
    CANCELLED = "cancelled"  # with the request


@dataclass(slots=True, eq=False)
class Attempt:
    """One call. `ends_at` is its timeout. Once it is settled, what it does changes nothing any more."""

    kind: Kind
    call: Call
    span: Span
    started_at: float
    ends_at: float
    task: asyncio.Task[None] | None = None
    texts: list[str] = field(default_factory=list)
    first_text_at: float | None = None
    outcome: Reply | Exception | None = None
    is_settled: bool = False
    may_move: bool = True

    @property
    def is_running(self) -> bool:
        return self.outcome is None and not self.is_settled

    @property
    def first_token_seconds(self) -> float | None:
        return None if self.first_text_at is None else self.first_text_at - self.started_at

    def late_at(self, delays: HedgeDelays, *, streamed: bool) -> float | None:
        """When it is late by what shows now; None where it is known to be, or where that cannot be said."""
        if self.call.is_late:
            return None
        waits = [delays.reply_seconds, delays.first_token_seconds if streamed and self.first_text_at is None else None]
        return min((self.started_at + wait for wait in waits if wait is not None), default=None)

    def give_up_at(self, deadline_at: float) -> float | None:
        """When half of its time is over, where it has shown nothing; a probe gets all of it."""
        if self.first_text_at is not None or self.kind is Kind.PROBE or not self.may_move:
            return None
        return (self.started_at + deadline_at) / 2

    def spent(self, input_tokens: int) -> Usage:
        """What it has cost, of a prompt of so many tokens: an estimate unless it has ended. One that failed before it
        showed anything cost nothing; one that ran out of time was under way."""
        if isinstance(self.outcome, Reply):
            return self.outcome.usage
        has_failed = isinstance(self.outcome, Exception) and not isinstance(self.outcome, DeadlineExceeded)
        return NO_USAGE if has_failed and not self.texts else Usage(input_tokens, estimate_tokens("".join(self.texts)))


def pause_before_retry(wish_seconds: float, remaining_seconds: float, attempts_made: int, draw: float) -> float | None:
    """Seconds to wait before another attempt, or None where they do not fit. `draw` is from 0 to 1.

    Exponential with full jitter, or what the model's service asked for where that is longer.
    """
    ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempts_made - 1))
    pause = max(draw * ceiling, wish_seconds)
    return pause if pause < remaining_seconds else None
