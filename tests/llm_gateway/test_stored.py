"""The bytes of a stored reply: what comes back, and what never counts as one."""

from __future__ import annotations

import math
import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.generation import FinishReason, Reply, Usage
from llm_gateway.stored import MOST_BODY_BYTES, Stored, decode, encode, scope_hash
from tests.llm_gateway.scripted_backend import reply

counts = st.integers(0, 2**31 - 1)
times = st.floats(0, 9e9)
replies = st.builds(
    Reply,
    text=st.text(min_size=1) | st.text(min_size=1).map(lambda text: text * 2000),
    model=st.text(),
    location=st.text(),
    finish_reason=st.sampled_from(FinishReason),
    usage=st.builds(Usage, counts, counts, counts, counts),
    offline=st.booleans(),
)
stored_replies = st.builds(
    Stored, replies, times, times, times, st.text(), st.text(), st.text().map(scope_hash), traceparent=st.text()
)


def stored(text: str = "abc", *, made_at: float = 1000.0, fresh_until: float = 1060.0, **fields: object) -> Stored:
    return Stored(reply(text), made_at, fresh_until, fresh_until, "Lua", "model-a", scope_hash(""), **fields)


@given(stored_replies)
def test_what_is_stored_comes_back_as_it_was(stored):
    assert decode(encode(stored)) == stored


class EarlierStored(msgspec.Struct, array_like=True, frozen=True):
    """As releases before the one with the trace had it."""

    reply: Reply
    made_at: float
    fresh_until: float
    expires_at: float
    persona: str
    model: str
    scope: str


def test_replicas_of_an_earlier_release_and_of_this_one_read_each_others_replies():
    ours = stored(traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01")
    fields = (ours.reply, ours.made_at, ours.fresh_until, ours.expires_at, ours.persona, ours.model, ours.scope)
    earlier = EarlierStored(*fields)
    assert decode(HEADER + msgspec.msgpack.encode(earlier)) == Stored(*fields, traceparent="")
    assert msgspec.msgpack.decode(encode(ours)[len(HEADER) :], type=EarlierStored) == earlier


def test_long_replies_are_compressed_and_short_ones_are_not():
    short, long = encode(stored("a" * 500)), encode(stored("a" * 5000))
    assert (short[4:5], long[4:5]) == (b"p", b"z")
    assert len(long) < len(short)


def test_the_times_stand_in_front_in_milliseconds_for_scripts_to_read():
    value = encode(stored(made_at=1_700_000_000.1234, fresh_until=1_700_001_800.0))
    assert value[5:31] == b"1700000000123" + b"1700001800000"


HEADER = encode(stored())[:31]


def raw(header: bytes = HEADER, *, times: tuple[float, ...] = (1000.0, 1060.0, 1060.0), **fields: object) -> bytes:
    body = [msgspec.to_builtins(reply("abc")) | fields, *times, "Lua", "model-a", scope_hash("")]
    return header + msgspec.msgpack.encode(body)


def compressed(body: bytes) -> bytes:
    return HEADER[:4] + b"z" + HEADER[5:] + zlib.compress(body)


POISON = {
    "empty": b"",
    "another program's": b"hello",
    "the last version's": b"ion1" + encode(stored())[4:],
    "magic alone": b"ion2",
    "header alone": HEADER,
    "cut": raw()[:-3],
    "with a tail": raw() + b"x",
    "neither plain nor compressed": HEADER[:4] + b"q" + raw()[5:],
    "other times in front": raw(HEADER[:5] + b"9" * 26),
    "no times in front": raw(HEADER[:5] + b"-" * 26),
    "no text": raw(text=""),
    "unknown reason": raw(finish_reason="blocked"),
    "text of another type": raw(text=7),
    "negative count": raw(usage={"input_tokens": -1}),
    "count beyond the contract": raw(usage={"output_tokens": 2**31}),
    "never made": raw(times=(math.nan, 1060.0, 1060.0)),
    "never over": raw(times=(1000.0, 1060.0, math.nan)),
    "over in infinity": raw(times=(1000.0, 1060.0, math.inf)),
    "fresh beyond all time": raw(times=(1000.0, 1e300, 1060.0)),
    "not UTF-8": raw().replace(b"abc", b"\xed\xa0\x80"),
    "deeply nested": HEADER + b"\x97" + raw()[32:] + b"\x91" * 100_000,
    "not what it says": HEADER[:4] + b"z" + raw()[5:],
    "compressed and cut": compressed(raw()[31:])[:-3],
    "compressed with a tail": compressed(raw()[31:]) + b"x",
    "a bomb": compressed(raw(text="a" * (MOST_BODY_BYTES + 1))[31:]),
}


def test_the_poison_is_poison_only_by_what_it_is_named_after():
    assert decode(raw())
    assert decode(compressed(raw()[31:]))
    assert decode(compressed(raw(text="a" * (MOST_BODY_BYTES // 2))[31:]))


@pytest.mark.parametrize("value", POISON.values(), ids=POISON.keys())
def test_a_poisoned_value_is_none(value):
    assert decode(value) is None


@given(st.binary(max_size=80), st.integers(0, 300), st.integers(0, 60), st.sampled_from(["abc", "abc" * 1000]))
def test_damaged_values_never_raise(noise, start, length, text):
    value = bytearray(encode(stored(text)))
    value[start : start + length] = noise
    read = decode(bytes(value))
    assert read is None or read.reply.text
