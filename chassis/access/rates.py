"""Rates in the notation of `limits`: "30/minute", "10/second;100/hour", "100 per 5 minutes"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

if TYPE_CHECKING:  # costs 50 ms of the start: imported where there is a limit
    from limits import RateLimitItem

OFF: Final = "off"
MAX_AMOUNT: Final = 10**12
MAX_SECONDS: Final = 31 * 86_400
_TIER: Final = re.compile(r"[a-z0-9_-]{1,32}")
_ALLOWED: Final = "off, or a rate such as 30/minute, of a month at most; more than one separated by semicolons"


def is_tier(name: object) -> bool:
    """Whether it may be the name of a tier: 1 to 32 of a-z, 0-9, - and _. Such names travel between services as they
    are."""
    return isinstance(name, str) and _TIER.fullmatch(name) is not None


def parse_rate(value: str) -> Sequence[RateLimitItem]:
    """All of these hold; none for "off". Raises ValueError saying what is allowed."""
    if value == OFF:
        return ()
    from limits import parse_many

    try:
        items = parse_many(value)
    except ValueError:
        raise ValueError(_ALLOWED) from None
    if not all(0 < item.amount <= MAX_AMOUNT and item.get_expiry() <= MAX_SECONDS for item in items):
        raise ValueError(_ALLOWED)
    return items


class Rates:
    """What a caller may do, by its tier; a tier without a rate of its own has the one of all."""

    def __init__(self, rate: str, tiers: Mapping[str, str]) -> None:
        self._default = parse_rate(rate)
        self._tiers = {tier: parse_rate(its_rate) for tier, its_rate in tiers.items()}

    def __bool__(self) -> bool:
        """Whether anybody is limited."""
        return bool(self._default) or any(self._tiers.values())

    def of(self, tier: str) -> Sequence[RateLimitItem]:
        return self._tiers.get(tier, self._default)


def _checked_rate(value: object) -> object:
    if isinstance(value, str):
        parse_rate(value)
    return value


def _checked_tiers(value: object) -> object:
    if not isinstance(value, str):
        return value
    tiers = {}
    for entry in filter(None, (part.strip() for part in value.split(","))):
        tier, _, rate = (part.strip() for part in entry.partition("="))
        if not is_tier(tier):
            raise ValueError("tier=rate, more than one separated by commas; a tier is 1 to 32 of a-z, 0-9, - and _")
        parse_rate(rate)
        tiers[tier] = rate
    return tiers


RateSetting = Annotated[str, BeforeValidator(_checked_rate)]
TierRatesSetting = Annotated[dict[str, str], NoDecode, BeforeValidator(_checked_tiers)]
