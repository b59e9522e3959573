"""The sliding window's arithmetic, against the library whose counters it reads."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from chassis.access.windows import Window

COUNTS = st.integers(0, 200)
SHARES = st.floats(0.0, 1.0)


@st.composite
def windows(draw):
    """As both storages give them: a window has its own period to go and then one as the previous one."""
    period, share = draw(st.sampled_from([1, 60, 3600])), draw(SHARES)
    previous, current = draw(COUNTS), draw(COUNTS)
    return Window(previous, share * period if previous else 0.0, current, (1 + share) * period, period)


def later(window: Window, seconds: float) -> Window:
    """The same window, so many seconds on, with nothing more counted."""
    turned = window.current_seconds - window.period_seconds
    if seconds < turned:
        left = max(0.0, window.previous_seconds - seconds)
        return Window(window.previous, left, window.current, window.current_seconds - seconds, window.period_seconds)
    fading = max(0.0, window.period_seconds - (seconds - turned))
    return Window(window.current, fading, 0, window.period_seconds, window.period_seconds)


@given(windows(), COUNTS)
def test_after_the_wait_it_holds_and_well_before_it_does_not(window, count):
    seconds = window.seconds_until(count)
    assert later(window, seconds).counted <= count
    if seconds > 0.003:
        assert later(window, seconds - 0.003).counted > count


@given(windows(), COUNTS)
def test_what_holds_already_is_not_waited_for(window, count):
    assert (window.seconds_until(count) == 0.0) == (window.counted <= count)


@given(st.integers(0, 30), st.integers(0, 30), SHARES)
def test_it_counts_as_the_library_does(previous, current, share):
    async def remaining() -> int:
        limiter = SlidingWindowCounterRateLimiter(_Fixed(previous, share * 60, current, (1 + share) * 60))
        return (await limiter.get_window_stats(RateLimitItemPerMinute(30), "x")).remaining

    window = Window(previous, share * 60, current, (1 + share) * 60, 60)
    assert max(0, 30 - window.counted) == asyncio.run(remaining())


class _Fixed(MemoryStorage):
    def __init__(self, *counts) -> None:
        super().__init__()
        self._counts = counts

    async def get_sliding_window(self, key, expiry):
        return self._counts


@pytest.mark.parametrize(
    ("window", "count", "seconds"),
    [
        (Window(0, 0.0, 30, 90.0, 60), 29, 30.0),  # all in this window: its turn, in 30 s
        (Window(30, 30.0, 15, 90.0, 60), 29, 0.0 + 0.0),  # 15 + 15, and the next moment 29
        (Window(30, 60.0, 0, 120.0, 60), 29, 0.0),
        (Window(0, 0.0, 60, 90.0, 60), 29, 60.0),  # over the limit: half of it has to fade
    ],
)
def test_examples(window, count, seconds):
    assert window.seconds_until(count) == pytest.approx(seconds, abs=0.01)


def test_one_more_in_an_empty_window_begins_it():
    window = Window(0, 0.0, 0, 0.0, 60).plus(1)
    assert (window.counted, window.current_seconds) == (1, 120.0)
