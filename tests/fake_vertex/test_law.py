"""The law of the delays, without waiting for them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fake_vertex.law import QUANTILES, LatencyLaw, total_seconds


@pytest.mark.parametrize(("quantile", "seconds"), QUANTILES)
def test_it_takes_what_the_report_says_at_its_quantiles(quantile, seconds):
    assert math.isclose(total_seconds(quantile), seconds)


def test_between_them_it_is_linear():
    assert math.isclose(total_seconds(0.3), 0.6)
    assert math.isclose(total_seconds(0.97), 3.0)


@given(st.floats(0, 1), st.floats(0, 1))
def test_it_never_falls_and_stays_in_its_bounds(one, other):
    low, high = sorted((one, other))
    assert 0.25 <= total_seconds(low) <= total_seconds(high) + 1e-12 <= 5.0 + 1e-9


def test_many_draws_have_its_quantiles():
    law = LatencyLaw(seed=1)
    count = 100_000
    totals = sorted(law.draw().total_seconds for _ in range(count))
    for quantile, seconds in QUANTILES:
        assert abs(totals[min(count - 1, int(quantile * count))] - seconds) < 0.1


@given(st.integers(), st.sampled_from(["us-central1", "europe-west1"]))
def test_the_same_seed_and_location_give_the_same_delays(seed, location):
    one, other = (LatencyLaw(seed=seed, location=location) for _ in range(2))
    assert [one.draw() for _ in range(5)] == [other.draw() for _ in range(5)]


def test_locations_and_seeds_are_independent():
    laws = [LatencyLaw(seed=seed, location=location) for seed in (1, 2) for location in ("a", "b")]
    assert len({law.draw() for law in laws}) == 4


@given(st.integers(), st.floats(0, 1), st.floats(0, 10))
def test_the_first_token_takes_its_share_of_the_same_total(seed, share, scale):
    whole = LatencyLaw(seed=seed).draw()
    split = LatencyLaw(seed=seed, first_token_share=share, scale=scale).draw()
    assert math.isclose(split.total_seconds, scale * whole.total_seconds)
    assert math.isclose(split.first_seconds, share * split.total_seconds)


def test_without_a_share_all_of_it_passes_before_the_first_token():
    delay = LatencyLaw(seed=1).draw()
    assert delay.first_seconds > 0
    assert delay.rest_seconds == 0
