"""What requests say in their headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.datastructures import State

from gateway_http.parameters import cache_control_of, deadline_of
from ion.llm.v1.llm_pb2 import CacheControl


@pytest.mark.parametrize(
    ("value", "control"),
    [
        (None, None),
        (b"", None),
        (b"public", None),
        (b"no-cache", CacheControl(bypass=True)),
        (b"No-Store", CacheControl(no_store=True)),
        (b"max-age=0", CacheControl(max_age_seconds=0)),
        (b"max-age=60, no-cache", CacheControl(bypass=True, max_age_seconds=60)),
        (b"max-age=60, max-age=30", CacheControl(max_age_seconds=30)),
        (b"max-age=99999999999", CacheControl(max_age_seconds=2**31 - 1)),
        (b"max-age=-1", None),
        (b"max-age=soon", None),
        (b"s-maxage=5", None),
    ],
)
def test_cache_control(value, control):
    headers = [] if value is None else [(b"cache-control", value)]
    assert cache_control_of({"headers": headers}) == control


@given(st.binary(max_size=60))
def test_any_cache_control_is_read(value):
    control = cache_control_of({"headers": [(b"cache-control", value)]})
    assert control is None or control.ByteSize()


@pytest.mark.parametrize(("given_seconds", "seconds"), [(None, 200), (100.0, 100)])
def test_the_deadline_is_the_callers_or_ours(given_seconds, seconds):
    remaining = deadline_of(State({"request_timeout_seconds": 200}), given_seconds).remaining_seconds()
    assert seconds - 60 < remaining <= seconds
