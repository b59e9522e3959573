"""When a call is late or given up, what it has cost, and the pause before the next."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import DeadlineExceeded
from chassis.observability.tracing import current_span
from llm_gateway.attempts import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    NO_USAGE,
    Attempt,
    Kind,
    pause_before_retry,
)
from llm_gateway.generation import ModelUnavailable, Usage
from llm_gateway.latencies import UNKNOWN, HedgeDelays
from llm_gateway.locations import Locations
from tests.llm_gateway.scripted_backend import reply

BOTH = HedgeDelays(first_token_seconds=1.0, reply_seconds=3.0)


def attempt_of(kind: Kind = Kind.FIRST) -> Attempt:
    return Attempt(kind, Locations(["a"]).start("a"), current_span(), started_at=100.0, ends_at=110.0)


def test_one_that_shows_nothing_is_late_by_whichever_delay_comes_first():
    assert attempt_of().late_at(BOTH, streamed=True) == 101.0
    assert attempt_of().late_at(HedgeDelays(4.0, 3.0), streamed=True) == 103.0


def test_a_first_token_in_time_leaves_the_delay_of_the_reply():
    attempt = attempt_of()
    attempt.first_text_at = 100.5
    assert attempt.late_at(BOTH, streamed=True) == 103.0


def test_only_a_stream_is_late_by_its_first_token():
    assert attempt_of().late_at(BOTH, streamed=False) == 103.0


def test_nothing_is_late_while_no_delay_is_known():
    assert attempt_of().late_at(UNKNOWN, streamed=True) is None


def test_one_is_late_once():
    attempt = attempt_of()
    attempt.call.late()
    assert attempt.late_at(BOTH, streamed=True) is None


def test_one_that_shows_nothing_is_given_up_at_half_of_its_time():
    assert attempt_of().give_up_at(110.0) == 105.0
    assert attempt_of().give_up_at(120.0) == 110.0  # a more patient caller has come


def test_one_that_has_shown_text_is_not_given_up():
    attempt = attempt_of()
    attempt.first_text_at = 100.5
    assert attempt.give_up_at(110.0) is None


def test_a_probe_has_all_of_its_time():
    assert attempt_of(Kind.PROBE).give_up_at(110.0) is None


@pytest.mark.parametrize(
    ("texts", "outcome", "usage"),
    [
        ([], None, Usage(50, 0)),
        (["four", "four"], None, Usage(50, 2)),
        ([], ModelUnavailable(), NO_USAGE),
        (["four"], ModelUnavailable(), Usage(50, 1)),
        ([], DeadlineExceeded(), Usage(50, 0)),
        (["four"], reply(), reply().usage),
    ],
)
def test_what_a_call_has_spent(texts, outcome, usage):
    attempt = attempt_of()
    attempt.texts, attempt.outcome = texts, outcome
    assert attempt.spent(50) == usage


@given(st.integers(1, 10), st.floats(0, 1), st.floats(0, 100), st.floats(0, 100))
def test_a_pause_is_as_long_as_wished_and_ends_before_the_deadline(attempts_made, draw, wish, remaining):
    pause = pause_before_retry(wish, remaining, attempts_made, draw)
    ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempts_made - 1))
    if pause is None:
        assert max(ceiling, wish) >= remaining
    else:
        assert wish <= pause <= max(ceiling, wish)
        assert pause < remaining


def test_jitter_spans_everything_from_nothing_to_the_ceiling():
    assert [pause_before_retry(0.0, 10, made, draw) for made, draw in ((1, 0.0), (1, 1.0), (2, 1.0))] == [
        0.0,
        0.05,
        0.1,
    ]
