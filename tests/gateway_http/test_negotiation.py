"""Accept headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_http.negotiation import header, qualities, wants_event_stream


@pytest.mark.parametrize(
    ("given_header", "weights"),
    [
        ("", {}),
        ("a/b", {"a/b": 1.0}),
        ("A/B ; Q=0.5, c/d;level=1;q=0.25", {"a/b": 0.5, "c/d": 0.25}),
        ("a/b;q=what", {"a/b": 0.0}),
        ("a/b,,", {"a/b": 1.0}),
    ],
)
def test_values_have_their_weights(given_header, weights):
    assert qualities(given_header) == weights


@given(st.binary(max_size=100))
def test_any_header_is_read(value):
    assert wants_event_stream({"headers": [(b"accept", value)]}) in (True, False)


def test_several_headers_are_one():
    headers = [(b"accept", b"application/JSON"), (b"host", b"x"), (b"accept", b"text/event-stream")]
    assert header({"headers": headers}, b"accept") == "application/json,text/event-stream"
    assert wants_event_stream({"headers": headers})
    assert header({"headers": []}, b"accept") == ""
