"""Deadlines: what is passed on, and what remains."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from chassis.deadline import MAX_MARGIN_SECONDS, Deadline

seconds = st.floats(0.001, 3600)


class Caller:
    def __init__(self, remaining):
        self._remaining = remaining

    def time_remaining(self):
        return self._remaining


@given(seconds)
def test_margin_is_a_tenth_and_at_most_100_ms(given_seconds):
    deadline = Deadline.after(given_seconds)
    margin = deadline.remaining_seconds() - deadline.less_margin().remaining_seconds()
    assert 0 <= margin <= MAX_MARGIN_SECONDS + 0.01
    assert abs(margin - min(0.1 * given_seconds, MAX_MARGIN_SECONDS)) < 0.01


@given(st.floats(-10, 0))
def test_time_that_remains_is_never_negative(given_seconds):
    assert Deadline.after(given_seconds).remaining_seconds() == 0
    assert Deadline.after(given_seconds).less_margin().remaining_seconds() == 0


@given(seconds, seconds)
def test_extending_keeps_the_later_and_leaves_the_other(first, second):
    mine, others = Deadline.after(first), Deadline.after(second)
    copy = mine.copy()
    copy.extend_to(others)
    assert abs(copy.remaining_seconds() - max(first, second)) < 0.1
    assert abs(mine.remaining_seconds() - first) < 0.1


def test_the_callers_deadline_or_the_default():
    assert 4.9 < Deadline.of(Caller(5.0), default_seconds=30).remaining_seconds() <= 5
    assert 29.9 < Deadline.of(Caller(None), default_seconds=30).remaining_seconds() <= 30
