"""What calls cost by list prices, and what each persona has used of each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from llm_gateway.generation import NO_USAGE, Usage

MAX_ENTRIES: Final = 1000
OTHER: Final = "(other)"
_MILLION: Final = 1_000_000

Dollars = Annotated[float, Field(ge=0, allow_inf_nan=False)]
# What a call to a model cost, by the tokens of its answer and of those not used; None where that is not known.
Cost = Callable[[str, Usage, Usage], float | None]


class Price(BaseModel):
    """US dollars for a million tokens. `since`: from that day on. `above`: only where there are more input tokens.
    `cached_input`: None counts as `input`, the most that it can be."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    since: date = date.min
    above: Annotated[int, Field(ge=0)] = 0


def cost_usd(prices: Sequence[Price], usage: Usage, today: date) -> float | None:
    """None where no price holds today. Cached input is a part of the input, thinking is paid like output."""
    price = price_for(prices, usage.input_tokens, today)
    if price is None:
        return None
    cached_price = price.input if price.cached_input is None else price.cached_input
    cached = min(usage.cached_input_tokens, usage.input_tokens)
    dollars = (
        (usage.input_tokens - cached) * price.input
        + cached * cached_price
        + (usage.output_tokens + usage.thinking_tokens) * price.output
    )
    return dollars / _MILLION


def price_for(prices: Sequence[Price], input_tokens: int, today: date) -> Price | None:
    """The newest that holds today, of these the one for prompts of that size."""
    holding = [price for price in prices if price.since <= today and (input_tokens > price.above or not price.above)]
    return max(holding, key=lambda price: (price.since, price.above), default=None)


@dataclass(frozen=True, slots=True)
class Entry:
    """What one persona has used of one model. `replies`: made by the model. `cost_usd`: of `usage` and `lost_usage`,
    None where a part of it is not known."""

    persona: str
    model: str
    replies: int = 0
    usage: Usage = NO_USAGE
    lost_usage: Usage = NO_USAGE
    cost_usd: float | None = 0.0


class Ledger:
    """Usage and cost since the start. The first 1000 personas and models have entries of their own; what comes after
    them counts under the persona "(other)", and after 1000 models there, under the model "(other)"."""

    def __init__(self, cost: Cost = lambda _model, _usage, _lost_usage: None) -> None:
        self._cost = cost
        self._entries: dict[tuple[str, str], Entry] = {}

    def add(self, persona: str, model: str, usage: Usage, lost_usage: Usage = NO_USAGE, *, replies: int = 1) -> None:
        key = self._key(persona, model)
        before = self._entries.get(key) or Entry(*key)
        self._entries[key] = Entry(
            *key,
            before.replies + replies,
            before.usage + usage,
            before.lost_usage + lost_usage,
            # By the call, not by the sum: prices depend on the day and on the size of the prompt.
            _sum(before.cost_usd, self._cost(model, usage, lost_usage)),
        )

    def entries(self) -> tuple[Entry, ...]:
        """In the order in which they were first used."""
        return tuple(self._entries.values())

    def _key(self, persona: str, model: str) -> tuple[str, str]:
        if (persona, model) in self._entries or len(self._entries) < MAX_ENTRIES:
            return persona, model
        if (OTHER, model) in self._entries or len(self._entries) < 2 * MAX_ENTRIES:
            return OTHER, model
        return OTHER, OTHER


def _sum(cost: float | None, more: float | None) -> float | None:
    return None if cost is None or more is None else cost + more
