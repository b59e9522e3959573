"""The notation of limits, and who has which."""

from __future__ import annotations

import pytest

from chassis.access.rates import Rates, is_tier, parse_rate


def described(rate: str) -> list[tuple[int, int]]:
    return [(item.amount, item.get_expiry()) for item in parse_rate(rate)]


@pytest.mark.parametrize(
    ("rate", "limits"),
    [
        ("off", []),
        ("30/minute", [(30, 60)]),
        ("5/second;100/minute", [(5, 1), (100, 60)]),
        ("100 per 5 minutes", [(100, 300)]),
        ("100000/hour", [(100_000, 3600)]),
    ],
)
def test_rates(rate, limits):
    assert described(rate) == limits


@pytest.mark.parametrize(
    "rate",
    ["", "30", "many/minute", "0/minute", "-1/minute", "30/fortnight", "9" * 13 + "/minute", "30/32 days", "OFF"],
)
def test_what_is_no_rate(rate):
    with pytest.raises(ValueError, match="off, or a rate such as 30/minute"):
        parse_rate(rate)


def test_a_tier_has_its_own_rate_and_all_others_the_one_of_all():
    rates = Rates("30/minute", {"pro": "300/minute", "internal": "off"})
    assert [[item.amount for item in rates.of(tier)] for tier in ("", "pro", "internal", "other")] == [
        [30],
        [300],
        [],
        [30],
    ]


@pytest.mark.parametrize("name", ["pro", "a-b_9", "x" * 32])
def test_tiers(name):
    assert is_tier(name)


@pytest.mark.parametrize("name", ["", "Pro", "a;b", "a b", "x" * 33, "프로", "pro\n", None, 7, ["pro"]])
def test_what_is_no_tier(name):
    """They travel in metadata, behind a semicolon."""
    assert not is_tier(name)
