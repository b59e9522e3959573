"""The arithmetic of histograms and shares."""

from __future__ import annotations

from bisect import bisect_left
from math import ceil, inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import telemetry
from standalone.top.tally import Tally, quantile, shares

BOUNDS = [0.01, 0.1, 1.0, 10.0]
SHARES = st.floats(0.01, 1.0)


def counted(values: list[float], scale: float = 1.0) -> list[tuple[float, float]]:
    return [(bound, scale * sum(value <= bound for value in values)) for bound in [*BOUNDS, inf]]


@pytest.mark.parametrize(
    ("share", "buckets", "value"),
    [
        (0.5, [(1.0, 5), (2.0, 10), (inf, 10)], 1.0),
        (0.75, [(1.0, 5), (2.0, 10), (inf, 10)], 1.5),
        (0.25, [(1.0, 5), (2.0, 10), (inf, 10)], 0.5),
        (0.99, [(1.0, 5), (2.0, 10), (inf, 1000)], 2.0),  # beyond what is known
        (0.5, [(1.0, 0), (2.0, 0), (4.0, 8), (inf, 8)], 3.0),
        (0.5, [(1.0, 0), (inf, 0)], None),
        (0.5, [], None),
        (0.5, [(inf, 5)], None),
        (0.5, [(1.0, 5), (2.0, 10)], None),  # not a whole histogram
    ],
)
def test_quantiles_are_as_prometheus_has_them(share, buckets, value):
    assert quantile(share, buckets) == pytest.approx(value)


@given(st.lists(st.floats(1e-6, 10.0), min_size=1), SHARES)
def test_a_quantile_lies_in_the_bucket_of_the_real_one(values, share):
    real = sorted(values)[ceil(share * len(values) - 1e-9) - 1]
    place = bisect_left(BOUNDS, real)
    found = quantile(share, counted(values))
    assert found is not None
    assert ([0.0, *BOUNDS][place] - 1e-9) <= found <= BOUNDS[place] + 1e-9


@given(st.lists(st.floats(1e-6, 100.0), min_size=1), SHARES, SHARES, st.floats(1e-3, 1e3))
def test_quantiles_grow_and_do_not_depend_on_how_many_there_were(values, one, other, scale):
    lower, upper = (quantile(share, counted(values)) for share in sorted((one, other)))
    assert lower is not None
    assert upper is not None
    assert 0 <= lower <= upper <= BOUNDS[-1]
    assert quantile(one, counted(values, scale)) == pytest.approx(quantile(one, counted(values)), rel=1e-6)


@given(st.dictionaries(st.text(max_size=3), st.floats(0, 1e6)))
def test_shares_are_of_the_whole_and_the_largest_is_first(numbers):
    told = shares(numbers)
    assert list(told.values()) == sorted(told.values(), reverse=True)
    assert sum(told.values()) == pytest.approx(1 if sum(numbers.values()) else 0)
    assert set(told) <= {name for name, number in numbers.items() if number}


def test_series_of_several_processes_are_summed():
    def series(tier: str, value: float):
        return ("ion_cache_lookups_total", frozenset({"ion_cache_tier": tier}.items())), value

    tally = Tally([series("near", 1.0), series("near", 2.0), series("none", 4.0)])
    assert tally.sum(telemetry.CACHE_LOOKUPS) == 7
    assert tally.by(telemetry.CACHE_LOOKUPS, telemetry.CACHE_TIER) == {"near": 3, "none": 4}
    assert tally.counts(telemetry.CACHE_LOOKUPS, telemetry.CACHE_TIER) == {"near": 2, "none": 1}
    assert not tally.has(telemetry.CACHE_ERRORS)
