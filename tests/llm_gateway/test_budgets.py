"""Extra calls stay a share of the traffic, and a request's calls within what it may spend."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.budgets import RatioBudget, RequestBudget


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def withdrawals(budget: RatioBudget, wanted: int) -> int:
    return sum(budget.withdraw() for _ in range(wanted))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("calls", [0, 9, 10, 70, 1000])
def test_a_share_of_the_calls_and_the_floor(clock: Clock, calls: int) -> None:
    budget = RatioBudget(share=0.1, floor=10, now=clock)
    for _ in range(calls):
        budget.deposit()
    allowed = 10 + calls // 10
    assert withdrawals(budget, allowed + 3) == allowed
    assert (budget.spent, budget.denied) == (allowed, 3)


def test_a_share_that_floats_round_down_is_not_lost(clock: Clock) -> None:
    assert 0.29 * 100 < 29
    budget = RatioBudget(share=0.29, floor=0, now=clock)
    for _ in range(100):
        budget.deposit()
    assert withdrawals(budget, 30) == 29


def test_calls_of_more_than_a_minute_ago_allow_nothing(clock: Clock) -> None:
    budget = RatioBudget(share=0.1, floor=0, now=clock)
    for _ in range(100):
        budget.deposit()
    clock.at += 59
    assert budget.withdraw()
    clock.at += 1
    assert not budget.withdraw()


def test_withdrawals_of_more_than_a_minute_ago_deny_nothing(clock: Clock) -> None:
    budget = RatioBudget(share=0.1, floor=2, now=clock)
    assert withdrawals(budget, 3) == 2
    clock.at += 59
    assert not budget.withdraw()
    clock.at += 1
    assert withdrawals(budget, 3) == 2


def test_the_window_is_as_long_as_it_is_told(clock: Clock) -> None:
    budget = RatioBudget(share=0.1, floor=1, window_seconds=6.0, now=clock)
    assert withdrawals(budget, 2) == 1
    clock.at += 5.8
    assert not budget.withdraw()
    clock.at += 0.2
    assert budget.withdraw()


def test_an_outage_after_a_quiet_hour_is_bounded_too(clock: Clock) -> None:
    budget = RatioBudget(share=0.1, floor=10, now=clock)
    for _ in range(3600):
        budget.deposit()
        clock.at += 1
    assert withdrawals(budget, 100) == 15


steps = st.lists(st.tuples(st.sampled_from([0.0, 0.3, 1.0, 20.0, 61.0]), st.integers(0, 40), st.integers(0, 9)))


@given(steps, st.integers(0, 3))
def test_every_withdrawal_keeps_the_share_of_its_last_minute(steps: list[tuple[float, int, int]], floor: int) -> None:
    clock = Clock()
    budget = RatioBudget(share=0.1, floor=floor, now=clock)
    deposited: list[float] = []
    withdrawn: list[float] = []
    for pause, deposits, wanted in steps:
        clock.at += pause
        for _ in range(deposits):
            budget.deposit()
            deposited.append(clock.at)
        for _ in range(wanted):
            if budget.withdraw():
                withdrawn.append(clock.at)
                # By whole seconds, in which both are counted.
                since = int(clock.at) - 59
                recent = [sum(at >= since for at in times) for times in (withdrawn, deposited)]
                assert recent[0] <= 0.1 * recent[1] + floor + 1e-6
    windows = len(list(itertools.groupby(withdrawn, key=lambda at: (at - 1000) // 60)))
    assert len(withdrawn) <= 0.1 * len(deposited) + floor * (windows + 1) + 1e-6
    assert budget.spent == len(withdrawn)


@given(steps)
def test_without_a_floor_the_share_holds_over_a_whole_run(steps: list[tuple[float, int, int]]) -> None:
    clock = Clock()
    budget = RatioBudget(share=0.1, floor=0, now=clock)
    deposits = 0
    for pause, calls, wanted in steps:
        clock.at += pause
        for _ in range(calls):
            budget.deposit()
        deposits += calls
        withdrawals(budget, wanted)
        assert 10 * budget.spent <= deposits


def test_a_long_run_keeps_nothing_but_the_window(clock: Clock) -> None:
    budget = RatioBudget(now=clock)
    for _ in range(10_000):
        budget.deposit()
        clock.at += 0.7
    assert len(budget._buckets) <= 60


def test_a_request_has_one_call_two_retries_and_a_hedge() -> None:
    budget = RequestBudget()
    made = 0
    while budget.may_attempt(1000):
        budget.took(1000)
        made += 1
    assert (made, budget.attempts_made, budget.input_tokens_taken) == (4, 4, 4000)


def test_a_request_spends_no_more_input_tokens_than_it_may() -> None:
    budget = RequestBudget(input_tokens=2500)
    budget.took(1000)
    assert budget.may_attempt(1500)
    budget.took(1000)
    assert budget.may_attempt(500)
    assert not budget.may_attempt(501)


def test_the_first_attempt_is_always_allowed() -> None:
    budget = RequestBudget(attempts=0, input_tokens=10)
    assert budget.may_attempt(1000)
    budget.took(1000)
    assert not budget.may_attempt(0)
