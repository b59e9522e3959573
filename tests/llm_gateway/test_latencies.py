"""Hedge delays follow what models take, and spend the share that they are given."""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect
from collections.abc import Callable, Iterator
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.budgets import RatioBudget
from llm_gateway.latencies import LEAST_SECONDS, MAX_MODELS, UNKNOWN, HedgeDelays, Latencies, Latency, hedge_delays
from tests.llm_gateway.conftest import Clock

MODEL = "gemini-3.5-flash"
SHARE = 0.09
# The latencies of issue 4: linear between these.
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 1.0)
SECONDS = (0.25, 0.4, 0.8, 1.5, 1.8, 4.2, 5.0)
TRUE_DELAY = 1.53  # at 1 - SHARE


def quantile(share: float) -> float:
    upper = bisect(QUANTILES, share)
    low, high = QUANTILES[upper - 1], QUANTILES[upper]
    return SECONDS[upper - 1] + (SECONDS[upper] - SECONDS[upper - 1]) * (share - low) / (high - low)


@pytest.fixture
def latencies(clock: Clock) -> Latencies:
    return Latencies(now=clock)


def add_replies(latencies: Latencies, *seconds: float) -> None:
    for each in seconds:
        latencies.add(MODEL, first_token_seconds=None, reply_seconds=each)


def late_share(calls: list[Latency], delays: HedgeDelays) -> float:
    def is_late(call: Latency) -> bool:
        pairs = ((call.first_token, delays.first_token_seconds), (call.reply, delays.reply_seconds))
        return any(took is not None and delay is not None and took > delay for took, delay in pairs)

    return sum(map(is_late, calls)) / len(calls)


def drawn(first_token: Callable[[float, random.Random], float | None]) -> list[Latency]:
    draws = random.Random(1)
    replies = [quantile(draws.random()) for _ in range(1000)]
    return [Latency(0.0, first_token(reply, draws), reply) for reply in replies]


def test_unknown_before_the_fiftieth_call(latencies: Latencies) -> None:
    add_replies(latencies, *range(49))
    assert latencies.delays(MODEL) == UNKNOWN
    add_replies(latencies, 49)
    assert latencies.delays(MODEL) == HedgeDelays(None, 45)
    assert latencies.delays("another") == UNKNOWN


def test_the_delay_is_the_quantile_of_the_share(latencies: Latencies) -> None:
    seconds = list(range(1000))
    random.Random(1).shuffle(seconds)
    add_replies(latencies, *seconds)
    assert latencies.delays(MODEL) == HedgeDelays(None, 909)


def test_measures_that_agree_share_their_late_calls() -> None:
    calls = drawn(lambda reply, _: 0.3 * reply)
    delays = hedge_delays(calls, share=SHARE, least=50)
    assert delays.reply_seconds == pytest.approx(TRUE_DELAY, rel=0.05)
    assert delays.first_token_seconds == pytest.approx(0.3 * TRUE_DELAY, rel=0.05)
    assert late_share(calls, delays) == SHARE


def test_independent_measures_have_half_of_the_late_calls_each() -> None:
    calls = drawn(lambda _, draws: draws.random())
    delays = hedge_delays(calls, share=SHARE, least=50)
    assert delays.first_token_seconds == pytest.approx(1 - SHARE / 2, abs=0.015)
    assert late_share(calls, delays) == pytest.approx(SHARE, abs=0.002)


def test_calls_without_a_first_token_are_late_by_their_reply() -> None:
    calls = drawn(lambda reply, draws: 0.3 * reply if draws.random() < 0.3 else None)
    delays = hedge_delays(calls, share=SHARE, least=50)
    assert delays.reply_seconds == pytest.approx(TRUE_DELAY, rel=0.05)
    assert delays.first_token_seconds == pytest.approx(0.3 * TRUE_DELAY, rel=0.1)
    assert late_share(calls, delays) == pytest.approx(SHARE, abs=0.003)


def test_a_measure_of_few_calls_has_no_delay() -> None:
    calls = [Latency(0.0, 9.0 if number < 49 else None, float(number)) for number in range(100)]
    assert hedge_delays(calls, share=SHARE, least=50) == HedgeDelays(None, 90.0)


def test_calls_that_were_cut_after_their_first_token_have_no_reply() -> None:
    calls = [Latency(0.0, float(number), None) for number in range(100)]
    assert hedge_delays(calls, share=SHARE, least=50) == HedgeDelays(90.0, None)


@given(
    st.lists(
        st.tuples(st.sampled_from([None, 0.0, 0.5, 1.0]), st.sampled_from([None, 1.0, 2.0, 3.0])),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([0.0, 0.05, 0.095, 0.5, 1.0]),
)
def test_whatever_ties_there_are_no_more_than_the_share_is_late(
    pairs: list[tuple[float | None, float | None]], share: float
) -> None:
    calls = [Latency(0.0, first_token, reply) for first_token, reply in pairs]
    delays = hedge_delays(calls, share=share, least=1)
    assert late_share(calls, delays) <= share
    for measure, delay in enumerate((delays.first_token_seconds, delays.reply_seconds)):
        known = [pair[measure] for pair in pairs if pair[measure] is not None]
        assert delay in known if known else delay is None


def test_calls_cancelled_at_the_delay_do_not_make_it_shrink(latencies: Latencies) -> None:
    """All that are late are hedged, all hedges win at once, and so all late calls end at the delay itself."""
    draws = random.Random(1)
    add_replies(latencies, *(quantile(draws.random()) for _ in range(1000)))
    first = latencies.delays(MODEL).reply_seconds
    assert first
    for _ in range(20_000):
        delay = latencies.delays(MODEL).reply_seconds
        assert delay
        add_replies(latencies, min(quantile(draws.random()), delay))
        assert delay >= 0.9 * first


def test_delays_are_computed_once_in_fifty_calls_of_a_full_window(latencies: Latencies) -> None:
    add_replies(latencies, *itertools.repeat(1.0, 1000))
    seen = []
    for _ in range(200):
        seen.append(latencies.delays(MODEL))
        add_replies(latencies, 1.0)
    assert len({id(delays) for delays in seen}) == 4


def test_old_calls_are_forgotten(latencies: Latencies, clock: Clock) -> None:
    add_replies(latencies, *itertools.repeat(1.0, 100))
    assert latencies.delays(MODEL) == HedgeDelays(None, 1.0)
    clock.at += 300
    add_replies(latencies, *itertools.repeat(2.0, 60))
    clock.at += 301
    assert latencies.delays(MODEL) == HedgeDelays(None, 2.0)
    clock.at += 300
    assert latencies.delays(MODEL) == UNKNOWN


def test_models_are_told_apart_and_bounded(latencies: Latencies) -> None:
    for number in range(MAX_MODELS + 1):
        for _ in range(50):
            latencies.add(f"model-{number:03}", first_token_seconds=None, reply_seconds=float(number))
        latencies.add("model-000", first_token_seconds=None, reply_seconds=0.0)
    assert len(latencies.models) == MAX_MODELS
    assert latencies.models[:2] == ["model-000", "model-002"], "the least recently used has left"
    assert latencies.delays("model-000") == HedgeDelays(None, LEAST_SECONDS), "no stall of this process is lateness"
    assert latencies.delays("model-001") == UNKNOWN
    assert latencies.delays("model-100") == HedgeDelays(None, 100.0)


class Traffic:
    """100 calls a second, hedged as the gateway does it: calls that lost to their hedge are known by lower bounds."""

    def __init__(
        self, first_token: Callable[[float, random.Random], float | None], factor: Callable[[int], float]
    ) -> None:
        self.clock = Clock()
        self.draws = random.Random(7)
        self.latencies = Latencies(share=SHARE, now=self.clock)
        self.budget = RatioBudget(share=0.10, floor=1, now=self.clock)
        self.first_token = first_token
        self.factor = factor
        self.hedged: list[int] = []
        self.delays: list[HedgeDelays] = []  # at the start of each call
        self._order = itertools.count()
        self._events: list[tuple[float, int, Iterator[float]]] = []

    def run(self, calls: int) -> Traffic:
        for number in range(calls):
            self._at(number / 100, self._call(number))
        while self._events:
            self.clock.at, _, call = heapq.heappop(self._events)
            for pause in call:
                self._at(self.clock.at + pause, call)
                break
        return self

    def _at(self, at: float, call: Iterator[float]) -> None:
        heapq.heappush(self._events, (at, next(self._order), call))

    def _call(self, number: int) -> Iterator[float]:
        self.budget.deposit()
        delays = self.latencies.delays(MODEL)
        self.delays.append(delays)
        reply = quantile(self.draws.random()) * self.factor(number)
        first_token = self.first_token(reply, self.draws)
        late_at = min(
            delays.reply_seconds if delays.reply_seconds and reply > delays.reply_seconds else reply,
            delays.first_token_seconds or reply
            if first_token and delays.first_token_seconds and first_token > delays.first_token_seconds
            else reply,
        )
        yield late_at
        ended = reply
        if late_at < reply and self.budget.withdraw():
            self.hedged.append(number)
            ended = min(reply, late_at + quantile(self.draws.random()) * self.factor(number))
        yield ended - late_at
        if ended < reply:
            reply = max(ended, delays.reply_seconds or 0.0)
            if first_token and first_token > ended:
                first_token = max(ended, delays.first_token_seconds or 0.0)
        self.latencies.add(MODEL, first_token_seconds=first_token, reply_seconds=reply)


@pytest.mark.parametrize(
    "first_token",
    [
        lambda _, __: None,
        lambda reply, _: 0.3 * reply,
        lambda reply, draws: 0.3 * reply if draws.random() < 0.5 else None,
    ],
    ids=["replies", "first tokens tell of replies", "half of them streamed"],
)
def test_with_hedging_on_the_share_and_the_quantile_hold(
    first_token: Callable[[float, random.Random], float | None],
) -> None:
    traffic = Traffic(first_token, lambda _: 1.0).run(20_000)
    assert 0.08 <= len(traffic.hedged) / 20_000 <= 0.105
    settled = [delays.reply_seconds for delays in traffic.delays[1000:] if delays.reply_seconds]
    assert mean(settled) == pytest.approx(TRUE_DELAY, rel=0.05)


@pytest.mark.parametrize("factor", [2.0, 0.5])
def test_the_delay_follows_a_model_that_becomes_slower_or_faster(factor: float) -> None:
    traffic = Traffic(lambda _, __: None, lambda number: factor if number >= 3000 else 1.0).run(8000)
    followed = [delays.reply_seconds for delays in traffic.delays[4500:] if delays.reply_seconds]
    assert mean(followed[:100]) == pytest.approx(factor * TRUE_DELAY, rel=0.1)
    assert mean(followed) == pytest.approx(factor * TRUE_DELAY, rel=0.05)
