"""When a location is left alone, how it comes back, and where calls go meanwhile."""

from __future__ import annotations

import random
from math import comb

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llm_gateway.breaker import MOST_LATE, RING, BreakerState
from llm_gateway.locations import Call, Locations
from tests.llm_gateway.conftest import Clock

A, B, C = NAMES = ("a", "b", "c")


@pytest.fixture
def locations(clock: Clock) -> Locations:
    """Without jitter: a breaker is open for all of its time."""
    return Locations(NAMES, now=clock, draw=lambda: 1.0)


def succeed(locations: Locations, name: str, times: int = 1) -> None:
    for _ in range(times):
        locations.start(name).succeeded()


def fail(locations: Locations, name: str, times: int = 1) -> None:
    for _ in range(times):
        locations.start(name).failed()


def be_late(locations: Locations, name: str, times: int = 1) -> None:
    for _ in range(times):
        locations.start(name).late()


def opened(locations: Locations, *names: str) -> None:
    for name in names:
        fail(locations, name, 10)
        assert locations.state(name) is BreakerState.OPEN


def probe(locations: Locations) -> Call:
    call = locations.start_probe()
    assert call
    return call


def seconds_open(locations: Locations, clock: Clock) -> float:
    """Until the next probe is due, to half a second."""
    started_at = clock.at
    while not (call := locations.start_probe()):
        clock.at += 0.5
    call.failed()
    return clock.at - started_at


def test_opens_where_a_quarter_of_ten_failed(locations: Locations) -> None:
    succeed(locations, A, 7)
    fail(locations, A, 2)
    assert locations.state(A) is BreakerState.CLOSED
    fail(locations, A)
    assert locations.state(A) is BreakerState.OPEN


def test_fewer_than_ten_outcomes_do_not_open_it(locations: Locations) -> None:
    fail(locations, A, 9)
    assert locations.state(A) is BreakerState.CLOSED


def test_a_fifth_failed_does_not_open_it(locations: Locations) -> None:
    for _ in range(20):
        succeed(locations, A, 4)
        fail(locations, A)
    assert locations.state(A) is BreakerState.CLOSED


def test_outcomes_of_more_than_thirty_seconds_ago_do_not_count(locations: Locations, clock: Clock) -> None:
    fail(locations, A, 9)
    clock.at += 30.5
    fail(locations, A, 9)
    assert locations.state(A) is BreakerState.CLOSED


def test_outcomes_before_the_last_twenty_do_not_count(locations: Locations) -> None:
    fail(locations, A, 9)
    succeed(locations, A, 20)
    fail(locations, A, 4)
    assert locations.state(A) is BreakerState.CLOSED


def test_a_location_that_hangs_opens_before_any_call_ends(locations: Locations) -> None:
    be_late(locations, A, MOST_LATE - 1)
    assert locations.state(A) is BreakerState.CLOSED
    be_late(locations, A)
    assert (locations.state(A), locations.running(A)) == (BreakerState.OPEN, MOST_LATE)


@pytest.mark.parametrize(("late_share", "least", "most"), [(0.1, 1e-10, 1e-9), (0.4, 0.005, 0.007)])
def test_the_chance_that_late_calls_open_a_full_ring(late_share: float, least: float, most: float) -> None:
    chances = [comb(RING, late) * late_share**late * (1 - late_share) ** (RING - late) for late in range(RING + 1)]
    assert least < sum(chances[MOST_LATE:]) < most


@pytest.mark.parametrize("late", [1, MOST_LATE - 1])
def test_late_calls_count_by_number_while_the_ring_is_not_full(locations: Locations, late: int) -> None:
    succeed(locations, A, MOST_LATE - late)
    be_late(locations, A, late)
    assert locations.state(A) is BreakerState.CLOSED


def test_a_late_call_that_succeeds_counts_once(locations: Locations) -> None:
    for _ in range(MOST_LATE - 1):
        call = locations.start(A)
        call.late()
        call.late()
        call.succeeded()
    assert locations.state(A) is BreakerState.CLOSED
    be_late(locations, A)
    assert locations.state(A) is BreakerState.OPEN, "the successes took the place of nothing"


def test_a_late_call_that_fails_counts_as_failed_and_not_twice(locations: Locations) -> None:
    succeed(locations, A, 7)
    calls = [locations.start(A) for _ in range(3)]
    for call in calls:
        call.late()
    calls[0].failed()
    calls[1].failed()
    assert locations.state(A) is BreakerState.CLOSED
    calls[2].failed()
    assert locations.state(A) is BreakerState.OPEN


def test_late_calls_open_nothing_where_no_other_location_is_usable(locations: Locations) -> None:
    opened(locations, B, C)
    be_late(locations, A, 20)
    assert locations.state(A) is BreakerState.CLOSED
    fail(locations, A, 5)
    assert locations.state(A) is BreakerState.OPEN, "failures do"


def test_cancelled_calls_tell_nothing(locations: Locations) -> None:
    for _ in range(20):
        locations.start(A).cancelled()
    fail(locations, A, 9)
    assert (locations.state(A), locations.running(A)) == (BreakerState.CLOSED, 0)


def test_the_first_end_of_a_call_counts(locations: Locations) -> None:
    calls = [locations.start(A) for _ in range(10)]
    for call in calls:
        call.cancelled()
        call.failed()
        call.late()
    assert (locations.state(A), locations.running(A)) == (BreakerState.CLOSED, 0)


def test_open_times_double_up_to_thirty_seconds(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    assert [seconds_open(locations, clock) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize(("draw", "seconds"), [(0.0, 0.5), (0.5, 0.75)])
def test_open_times_have_jitter(clock: Clock, draw: float, seconds: float) -> None:
    locations = Locations(NAMES, now=clock, draw=lambda: draw)
    opened(locations, A)
    clock.at += seconds - 0.01
    assert locations.start_probe() is None
    clock.at += 0.02
    assert probe(locations).location == A


def test_three_probes_in_a_row_close_it(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    clock.at += 1
    for _ in range(3):
        assert locations.state(A) is not BreakerState.CLOSED
        call = probe(locations)
        assert (locations.state(A), call.is_probe) == (BreakerState.HALF_OPEN, True)
        assert locations.start_probe() is None, "one at a time"
        call.succeeded()
    assert (locations.state(A), locations.choose()) == (BreakerState.CLOSED, A)


def test_a_failure_between_starts_the_row_again(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    clock.at += 1
    probe(locations).succeeded()
    probe(locations).succeeded()
    probe(locations).failed()
    assert locations.state(A) is BreakerState.OPEN
    clock.at += 2
    probe(locations).succeeded()
    assert locations.state(A) is BreakerState.HALF_OPEN


def test_a_late_probe_opens_it_and_its_end_tells_nothing_more(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    clock.at += 1
    call = probe(locations)
    call.late()
    assert locations.state(A) is BreakerState.OPEN
    call.succeeded()
    assert locations.state(A) is BreakerState.OPEN
    clock.at += 1
    assert locations.start_probe() is None
    clock.at += 1
    assert probe(locations).location == A


def test_a_cancelled_probe_is_followed_soon_by_another(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    for _ in range(4):
        seconds_open(locations, clock)
    clock.at += 16
    probe(locations).cancelled()
    assert locations.state(A) is BreakerState.OPEN
    assert locations.start_probe() is None
    clock.at += 1
    assert probe(locations).location == A


def test_calls_from_before_the_opening_tell_nothing_of_the_time_after(locations: Locations, clock: Clock) -> None:
    old = [locations.start(A) for _ in range(20)]
    opened(locations, A)
    for call in old[:10]:
        call.succeeded()
    assert locations.state(A) is BreakerState.OPEN
    clock.at += 1
    for _ in range(3):
        probe(locations).succeeded()
    for call in old[10:]:
        call.failed()
    assert locations.state(A) is BreakerState.CLOSED


def close_again(locations: Locations, clock: Clock, *, after_seconds: float) -> None:
    clock.at += after_seconds
    for _ in range(3):
        probe(locations).succeeded()


def test_what_opened_it_does_not_open_it_again(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    close_again(locations, clock, after_seconds=1)
    fail(locations, A)
    assert locations.state(A) is BreakerState.CLOSED


def test_a_relapse_is_open_for_longer_than_the_first_time(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    close_again(locations, clock, after_seconds=1)
    clock.at += 29
    opened(locations, A)
    assert seconds_open(locations, clock) == 2


def test_thirty_seconds_closed_are_a_clean_record(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    close_again(locations, clock, after_seconds=1)
    clock.at += 30
    opened(locations, A)
    assert seconds_open(locations, clock) == 1


def test_retry_after_is_obeyed_without_opening_the_breaker(locations: Locations, clock: Clock) -> None:
    for _ in range(10):
        locations.start(A).failed(retry_after_seconds=5)
    assert (locations.state(A), locations.wait_seconds(A)) == (BreakerState.CLOSED, 5)
    assert locations.choose() == B
    clock.at += 5
    assert (locations.choose(), locations.wait_seconds(A)) == (A, 0)


def test_a_shorter_retry_after_does_not_end_a_longer_one(locations: Locations) -> None:
    locations.start(A).failed(retry_after_seconds=5)
    locations.start(A).failed(retry_after_seconds=1)
    assert locations.wait_seconds(A) == 5


def test_failures_count_though_they_ask_for_a_moment(locations: Locations) -> None:
    for _ in range(10):
        locations.start(A).failed(retry_after_seconds=0.01)
    assert locations.state(A) is BreakerState.OPEN


def test_no_probe_before_the_retry_after_is_over(locations: Locations, clock: Clock) -> None:
    opened(locations, A)
    clock.at += 1
    probe(locations).failed(retry_after_seconds=10)
    clock.at += 9.9
    assert (locations.state(A), locations.start_probe()) == (BreakerState.OPEN, None)
    clock.at += 0.2
    assert probe(locations).location == A


def test_the_order_of_preference_and_what_to_avoid(locations: Locations) -> None:
    assert locations.choose() == A
    assert locations.choose(avoid={A}) == B
    opened(locations, B)
    assert locations.choose(avoid={A}) == C
    assert locations.choose(avoid={A, C}) == A, "usable, though to be avoided"
    assert locations.alternative(avoid={A, C}) is None
    assert locations.alternative(avoid={A}) == C


def test_where_none_is_usable_the_one_that_is_tried_soonest(locations: Locations, clock: Clock) -> None:
    locations.start(B).failed(retry_after_seconds=20)
    opened(locations, A)
    clock.at += 0.1
    opened(locations, C)
    assert locations.choose() == A
    assert locations.choose(avoid={A}) == C
    assert locations.choose(avoid={A, C}) == B
    assert locations.choose(avoid=NAMES) == A
    assert locations.alternative(avoid=()) is None


def test_where_none_is_usable_calls_are_the_probes(locations: Locations, clock: Clock) -> None:
    opened(locations, *NAMES)
    assert not locations.start(A).is_probe, "not due"
    clock.at += 1
    assert locations.start_probe() is None
    calls = [locations.start(locations.choose()) for _ in range(3)]
    assert [(call.location, call.is_probe) for call in calls] == [(A, True), (B, True), (C, True)]
    assert not locations.start(locations.choose()).is_probe, "one at a time"


def test_good_answers_of_any_call_close_it_where_none_is_usable(locations: Locations) -> None:
    opened(locations, *NAMES)
    succeed(locations, A)
    assert locations.state(A) is BreakerState.HALF_OPEN
    succeed(locations, A, 2)
    assert locations.state(A) is BreakerState.CLOSED


def test_a_probe_stays_the_only_one_when_another_call_succeeds(locations: Locations, clock: Clock) -> None:
    opened(locations, *NAMES)
    clock.at += 1
    probing, other = locations.start(A), locations.start(A)
    assert (probing.is_probe, other.is_probe) == (True, False)
    other.succeeded()
    assert not locations.start(A).is_probe


def test_an_opening_tells_the_watchers_once(locations: Locations, clock: Clock) -> None:
    states: list[BreakerState] = []

    def watcher() -> None:
        states.append(locations.state(A))
        locations.watchers.discard(leaving)

    def leaving() -> None:
        """A race that ends as it is told."""

    locations.watchers.update({watcher, leaving})
    opened(locations, A)
    assert states == [BreakerState.OPEN]
    clock.at += 1
    probe(locations).succeeded()
    probe(locations).failed()
    assert len(states) == 2
    locations.watchers.clear()
    opened(locations, B)
    assert len(states) == 2


def test_stranded_are_the_late_calls_sent_before_the_opening(locations: Locations) -> None:
    late, quick = locations.start(A), locations.start(A)
    late.late()
    assert not late.is_stranded
    opened(locations, A)
    after = locations.start(A)
    after.late()
    assert [call.is_stranded for call in (late, quick, after)] == [True, False, False]
    quick.late()
    late.succeeded()
    assert [call.is_stranded for call in (late, quick)] == [False, True]


def test_latency_is_a_moving_average_of_what_may_be_learned(locations: Locations) -> None:
    assert locations.latency_seconds(A) is None
    locations.start(A).succeeded(2.0)
    locations.start(A).succeeded()
    locations.start(A).failed()
    assert locations.latency_seconds(A) == 2.0
    locations.start(A).succeeded(1.0)
    assert locations.latency_seconds(A) == pytest.approx(1.9)


class ByLatency:
    """Locations chosen by latency, with seeded draws."""

    def __init__(self, clock: Clock, **latencies: float) -> None:
        self.locations = Locations(NAMES, choice="latency", now=clock, draw=random.Random(1).random)
        for name, seconds in latencies.items():
            self.locations.start(name).succeeded(seconds)

    def share(self, name: str) -> float:
        return [self.locations.choose() for _ in range(3000)].count(name) / 3000


def test_by_latency_the_slowest_of_three_is_never_chosen_and_the_fastest_in_two_of_three(clock: Clock) -> None:
    by_latency = ByLatency(clock, a=0.9, b=0.5, c=0.7)
    assert by_latency.share(A) == 0
    assert by_latency.share(B) == pytest.approx(2 / 3, abs=0.03)
    assert by_latency.share(C) == pytest.approx(1 / 3, abs=0.03)


def test_by_latency_calls_under_way_count(clock: Clock) -> None:
    by_latency = ByLatency(clock, a=0.9, b=0.5, c=0.7)
    by_latency.locations.start(B)
    assert by_latency.share(B) == 0


def test_by_latency_an_unknown_location_is_tried(clock: Clock) -> None:
    by_latency = ByLatency(clock, a=0.9, b=0.5)
    assert by_latency.share(C) > 0.3


def test_by_latency_a_location_that_was_slow_is_tried_again(clock: Clock) -> None:
    by_latency = ByLatency(clock, a=0.9)
    clock.at += 30
    for name in (B, C):
        by_latency.locations.start(name).succeeded(0.7)
    assert by_latency.share(A) == pytest.approx(2 / 3, abs=0.03)


def test_by_latency_only_usable_ones_are_chosen(clock: Clock) -> None:
    by_latency = ByLatency(clock, a=0.9, b=0.5, c=0.7)
    opened(by_latency.locations, B)
    assert by_latency.share(C) == 1
    assert by_latency.locations.choose(avoid={C}) == A


class Outages(RuleBasedStateMachine):
    """Any order of calls, outcomes and time; the promises that hold in each."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.random = random.Random(1)
        self.locations = Locations(NAMES, now=self.clock, draw=self.random.random)
        self.calls: list[Call] = []
        self.probes: dict[str, Call] = {}
        self.locations.watchers.add(self.forget_probes)

    def forget_probes(self) -> None:
        """A breaker that opened has its verdict, whatever becomes of the probe."""
        for name in NAMES:
            if self.locations.state(name) is BreakerState.OPEN:
                self.probes.pop(name, None)

    def started(self, call: Call) -> None:
        self.calls.append(call)
        if call.is_probe:
            assert call.location not in self.probes, "a second probe"
            self.probes[call.location] = call

    def ended(self, call: Call) -> None:
        self.calls.remove(call)
        if self.probes.get(call.location) is call:
            del self.probes[call.location]

    @rule(avoid=st.sets(st.sampled_from(NAMES)), burst=st.sampled_from([1, 12]))
    def call(self, avoid: set[str], burst: int) -> None:
        for _ in range(burst):
            self.started(self.locations.start(self.locations.choose(avoid=avoid)))

    @rule()
    def send_probe(self) -> None:
        call = self.locations.start_probe()
        if call:
            assert call.is_probe
            self.started(call)

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1))
    def outage(self, names: set[str]) -> None:
        for name in names:
            for _ in range(12):
                call = self.locations.start(name)
                self.started(call)
                call.failed()
                self.ended(call)
            assert self.locations.state(name) is BreakerState.OPEN

    @precondition(lambda self: self.calls)
    @rule(
        data=st.data(),
        how=st.sampled_from(["late", "succeeded", "failed", "cancelled", "quota"]),
        burst=st.sampled_from([1, 12]),
    )
    def tell(self, data: st.DataObject, how: str, burst: int) -> None:
        for _ in range(min(burst, len(self.calls))):
            call = self.calls[data.draw(st.integers(0, len(self.calls) - 1))]
            if how == "quota":
                call.failed(retry_after_seconds=3)
            else:
                getattr(call, how)()
            if how != "late":
                self.ended(call)

    @rule(seconds=st.sampled_from([0.2, 1.0, 5.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.clock.at += seconds

    @invariant()
    def running_is_what_was_started_and_has_not_ended(self) -> None:
        for name in NAMES:
            assert self.locations.running(name) == len([call for call in self.calls if call.location == name])

    @invariant()
    def a_closed_breaker_never_refuses(self) -> None:
        for name in NAMES:
            others = set(NAMES) - {name}
            if self.locations.state(name) is BreakerState.CLOSED and not self.locations.wait_seconds(name):
                assert self.locations.alternative(avoid=others) == name
            else:
                assert self.locations.alternative(avoid=others) is None
        assert self.locations.choose() in NAMES
        assert self.locations.choose(avoid=NAMES) in NAMES

    def teardown(self) -> None:
        """Whatever happened, good answers bring every location back."""
        for call in self.calls:
            call.cancelled()
        for _ in range(20):
            self.clock.at += 31
            self.locations.start(self.locations.choose()).succeeded()
            for _ in NAMES:
                probing = self.locations.start_probe()
                if probing:
                    probing.succeeded()
        assert [self.locations.state(name) for name in NAMES] == [BreakerState.CLOSED] * 3


Outages.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOutages = Outages.TestCase
