"""Prices applied, and the ledger of who used what."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm_gateway.generation import Usage
from llm_gateway.spending import MAX_ENTRIES, OTHER, Ledger, Price, cost_usd, price_for

TODAY = date(2026, 11, 24)
PLAIN = Price(input=1.5, cached_input=0.15, output=9.0)


def test_input_cached_input_and_output_are_priced_apart_and_thinking_like_output():
    usage = Usage(input_tokens=1_000_000, output_tokens=100_000, cached_input_tokens=400_000, thinking_tokens=50_000)
    assert cost_usd([PLAIN], usage, TODAY) == pytest.approx(0.6 * 1.5 + 0.4 * 0.15 + 0.15 * 9.0)


def test_cached_input_without_a_price_costs_what_input_costs():
    usage = Usage(input_tokens=1_000_000, cached_input_tokens=400_000)
    assert cost_usd([Price(input=0.3, output=2.5)], usage, TODAY) == pytest.approx(0.3)


def test_cost_is_not_known_without_a_price_for_today():
    tomorrow = Price(input=1.0, output=1.0, since=date(2026, 11, 25))
    assert cost_usd([], Usage(1, 1), TODAY) is None
    assert cost_usd([tomorrow], Usage(1, 1), TODAY) is None


def test_prices_change_on_their_day():
    dearer = Price(input=4.0, output=20.0, since=date(2026, 12, 1))
    assert price_for([PLAIN, dearer], 1, date(2026, 11, 30)) == PLAIN
    assert price_for([PLAIN, dearer], 1, date(2026, 12, 1)) == dearer


def test_long_prompts_have_their_own_price_for_all_their_tokens():
    long = Price(input=4.0, cached_input=0.4, output=18.0, above=200_000)
    prices = [long, Price(input=2.0, cached_input=0.2, output=12.0)]
    assert cost_usd(prices, Usage(input_tokens=200_000), TODAY) == pytest.approx(0.4)
    assert cost_usd(prices, Usage(input_tokens=200_001, output_tokens=10), TODAY) == pytest.approx(0.800004 + 0.00018)


def test_a_newer_price_ends_the_older_ones_for_long_prompts_too():
    long, newer = Price(input=4.0, output=18.0, above=10), Price(input=1.0, output=1.0, since=TODAY)
    assert price_for([PLAIN, long, newer], 11, TODAY) == newer


@given(st.builds(Usage, *[st.integers(0, 10**7)] * 4))
def test_cost_lies_between_all_cached_and_nothing_cached(usage):
    written = (usage.output_tokens + usage.thinking_tokens) * 9.0
    least, most = (usage.input_tokens * 0.15 + written) / 1e6, (usage.input_tokens * 1.5 + written) / 1e6
    cost = cost_usd([PLAIN], usage, TODAY)
    assert cost == pytest.approx(min(max(cost, least), most))


@pytest.mark.parametrize("change", [{"input": -1.0}, {"output": float("inf")}, {"currency": "EUR"}, {"input": "1"}])
def test_price_is_read_strictly(change):
    with pytest.raises(ValidationError):
        Price.model_validate({"input": 1.0, "output": 1.0} | change)


def test_ledger_adds_up_by_persona_and_model():
    ledger = Ledger(lambda model, usage, lost: usage.input_tokens + lost.input_tokens / 10)
    ledger.add("Lua", "a", Usage(10, 1, 2, 3), Usage(5, 4))
    ledger.add("Lua", "a", Usage(20, 2))
    ledger.add("Lua", "a", Usage(), Usage(1), replies=0)
    ledger.add("Lua", "b", Usage(7))
    ledger.add("", "a", Usage(9))
    lua, other_model, nobody = ledger.entries()
    assert (lua.persona, lua.model, lua.replies) == ("Lua", "a", 2)
    assert (lua.usage, lua.lost_usage) == (Usage(30, 3, 2, 3), Usage(6, 4))
    assert lua.cost_usd == pytest.approx(30.6)
    assert (other_model.model, other_model.usage, nobody.persona) == ("b", Usage(7), "")


def test_ledger_prices_each_call_by_itself():
    """A sum of small prompts is no long prompt."""
    tiers = [Price(input=2.0, output=1.0), Price(input=4.0, output=1.0, above=200_000)]
    ledger = Ledger(lambda model, usage, lost: cost_usd(tiers, usage, TODAY))
    for _ in range(3):
        ledger.add("Lua", "a", Usage(100_000))
    assert ledger.entries()[0].cost_usd == pytest.approx(0.6)


def test_cost_of_an_entry_is_not_known_where_a_part_is_not():
    known = iter([1.0, None, 1.0])
    ledger = Ledger(lambda model, usage, lost: next(known))
    for _ in range(3):
        ledger.add("Lua", "a", Usage(1))
    assert ledger.entries()[0].cost_usd is None


def test_ledger_without_prices_knows_no_cost():
    ledger = Ledger()
    ledger.add("Lua", "a", Usage(1))
    assert ledger.entries()[0].cost_usd is None


def test_ledger_is_bounded_and_loses_nothing():
    ledger = Ledger()
    for number in range(MAX_ENTRIES):
        ledger.add(f"persona {number}", "a", Usage(1))
    for number in range(500):
        ledger.add(f"late {number}", "a", Usage(1))
    ledger.add("persona 3", "a", Usage(1))
    entries = {(entry.persona, entry.model): entry for entry in ledger.entries()}
    assert len(entries) == MAX_ENTRIES + 1
    assert entries[OTHER, "a"].replies == 500
    assert entries["persona 3", "a"].replies == 2

    for number in range(3 * MAX_ENTRIES):
        ledger.add("late", f"model {number}", Usage(1))
    assert len(ledger.entries()) <= 2 * MAX_ENTRIES + 1
    assert sum(entry.usage.input_tokens for entry in ledger.entries()) == MAX_ENTRIES + 501 + 3 * MAX_ENTRIES
