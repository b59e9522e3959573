"""What came of the calls."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

PERCENTILES: Final = (50, 95, 99)
now: Final = time.perf_counter  # the event loop's clock has steps of a millisecond


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call. `failure` is a reason, "" where the model has answered; an apology is a failure. `history`
    is "" without a session. `first_text_at` is by `now`, None without a stream."""

    failure: str = ""
    persona: str = ""
    cache: str = ""
    history: str = ""
    first_text_at: float | None = None


@dataclass(slots=True)
class Tally:
    """Counts, and the exact times of all calls that were answered, in seconds."""

    sent: int = 0
    answered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    personas: Counter[str] = field(default_factory=Counter)
    cache: Counter[str] = field(default_factory=Counter)
    history: Counter[str] = field(default_factory=Counter)
    times: array[float] = field(default_factory=lambda: array("d"))
    first_text_times: array[float] = field(default_factory=lambda: array("d"))

    def add(self, answer: Answer, *, begun_at: float, ended_at: float) -> None:
        if answer.failure:
            self.errors[answer.failure] += 1
            return
        self.answered += 1
        self.personas[answer.persona] += 1
        self.cache[answer.cache] += 1
        self.history.update(filter(None, [answer.history]))
        self.times.append(ended_at - begun_at)
        if answer.first_text_at is not None:
            self.first_text_times.append(answer.first_text_at - begun_at)

    @property
    def failed(self) -> int:
        return self.errors.total()

    def summary(self, seconds: float) -> dict[str, Any]:
        """For programs; times in milliseconds, shares from 0 to 1."""
        return {
            "sent": self.sent,
            "ok": self.answered,
            "errors": dict(self.errors.most_common()),
            "seconds": round(seconds, 3),
            "requests_per_second": round(self.answered / seconds, 1) if seconds else 0.0,
            "latency_ms": percentiles(self.times),
            "first_text_ms": percentiles(self.first_text_times),
            "cache": shares(self.cache),
            "history": shares(self.history),
            "personas": shares(self.personas),
        }


def percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Milliseconds, each the time of a call that there was (nearest rank); None where there was none."""
    if not seconds:
        return None
    values = np.percentile(seconds, (*PERCENTILES, 100), method="inverted_cdf") * 1000
    names = (*(f"p{percentile}" for percentile in PERCENTILES), "max")
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)}


def shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {name: round(count / total, 4) for name, count in counts.most_common()}
