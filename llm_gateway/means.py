"""What all model calls share: where they go, what they may cost, and what is counted."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from llm_gateway.attempts import Kind
from llm_gateway.backends import Backend
from llm_gateway.budgets import RatioBudget
from llm_gateway.labels import Labels
from llm_gateway.latencies import Latencies
from llm_gateway.locations import Locations
from llm_gateway.spending import Ledger

# With the one that a minute may have in any case, below a tenth from 200 requests a minute on.
HEDGED_SHARE: Final = 0.095


class HedgeMode(StrEnum):
    """What a call is hedged on: nothing, a late reply, or a late first token as well, for which unary calls too are
    streamed from the model."""

    OFF = "off"
    REPLY = "reply"
    FIRST_TOKEN = "first-token"  # noqa: S105 - of a model


@dataclass(slots=True)
class CallStatistics:
    """Counts since the start; another thread may look at them."""

    attempts: Counter[tuple[Kind, str]] = field(default_factory=Counter)  # by location
    hedges_won: int = 0
    hedges_lost: int = 0
    hedges_denied: int = 0
    retries_denied: int = 0

    @property
    def calls(self) -> int:
        return self.attempts.total()

    @property
    def hedges(self) -> int:
        return sum(number for (kind, _), number in self.attempts.copy().items() if kind.is_extra)

    @property
    def retries(self) -> int:
        return sum(number for (kind, _), number in self.attempts.copy().items() if kind is Kind.RETRY)


class Means:
    """What all races share: where calls go, what they may cost, and what is counted. `draw` gives the jitter: uniform
    from 0 to 1. `tells_content`: spans hold what is said, too."""

    def __init__(
        self,
        backend: Backend,
        locations: Locations,
        *,
        ledger: Ledger | None = None,
        hedge_mode: HedgeMode = HedgeMode.FIRST_TOKEN,
        max_tokens_per_request: int = 0,
        labels: Labels | None = None,
        tells_content: bool = False,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.backend = backend
        self.locations = locations
        self.hedge_mode = hedge_mode
        self.max_tokens_per_request = max_tokens_per_request
        self.labels = labels or Labels(backend.default_model)
        self.tells_content = tells_content
        self.draw = draw
        self.latencies = Latencies()
        self.retry_budget = RatioBudget()
        self.hedge_budget = RatioBudget(HEDGED_SHARE, floor=1)
        self.ledger = ledger or Ledger()
        self.statistics = CallStatistics()
        self.probes: set[asyncio.Task[None]] = set()
