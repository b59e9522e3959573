"""Replies in memory: how many, how large and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.near_cache import NearCache
from llm_gateway.stored import Found, Stored, scope_hash
from tests.llm_gateway.conftest import Clock
from tests.llm_gateway.scripted_backend import reply


def put(cache: NearCache, key: str, clock: Clock, *, text: str = "", seconds: float = 10, stale: float = 0) -> Stored:
    until = clock() + seconds
    stored = Stored(reply(text or key), clock(), until, until + stale, "Lua", "model-a", scope_hash(""))
    cache.put(key, stored, unix_now=clock(), fresh_seconds=10, stale_seconds=stale)
    return stored


def held(cache: NearCache, *keys: str) -> list[bool]:
    return [cache.get(key) is not None for key in keys]


def test_the_least_recently_used_leave_first(clock):
    cache = NearCache(2, now=clock)
    for key in ("a", "b"):
        put(cache, key, clock)
    assert held(cache, "a") == [True]
    put(cache, "c", clock)
    assert held(cache, "a", "b", "c") == [True, False, True]
    assert len(cache) == 2


def test_large_replies_leave_before_there_are_too_many(clock):
    cache = NearCache(1000, max_bytes=100_000, now=clock)
    for number in range(50):
        put(cache, str(number), clock, text="a" * 20_000)
    assert held(cache, "48", "49") == [True, True]
    assert len(cache) == 4


def test_a_reply_larger_than_all_room_is_not_kept(clock):
    cache = NearCache(10, max_bytes=10_000, now=clock)
    put(cache, "a", clock, text="a" * 20_000)
    assert len(cache) == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 40), st.booleans()), max_size=40))
def test_room_is_given_back(steps):
    clock = Clock()
    cache = NearCache(10, max_bytes=50_000, now=clock)
    for key, kilobytes, is_put in steps:
        if is_put:
            put(cache, key, clock, text="a" * 1000 * kilobytes)
        else:
            cache.discard(key)
    for key in "abcd":
        cache.discard(key)
    put(cache, "last", clock, text="a" * 48_000)  # fits only where nothing else is counted
    assert held(cache, "last") == [True]


def test_time_ends_it(clock):
    cache = NearCache(2, now=clock)
    put(cache, "a", clock)
    clock.at += 9.5
    assert held(cache, "a") == [True]
    clock.at += 0.5
    assert held(cache, "a") == [False]
    assert len(cache) == 0


def test_it_is_stale_before_it_is_over(clock):
    cache = NearCache(2, now=clock)
    stored = put(cache, "a", clock, stale=5)
    clock.at += 9.5
    assert cache.get("a") == (stored, Found(stored.reply, 9.5, is_stale=False))
    clock.at += 0.5
    assert cache.get("a") == (stored, Found(stored.reply, 10.0, is_stale=True))
    clock.at += 5
    assert cache.get("a") is None


def test_no_clock_of_another_makes_it_last(clock):
    cache = NearCache(2, now=clock)
    put(cache, "a", clock, seconds=1e6, stale=5)
    clock.at += 10
    _, found = cache.get("a")
    assert found.is_stale
    clock.at += 5
    assert cache.get("a") is None


def test_its_age_counts_from_its_making_and_is_never_negative(clock):
    cache = NearCache(2, now=clock)
    old = Stored(reply(), clock() - 3, clock() + 5, clock() + 5, "", "", "")
    for made_at, age in ((old.made_at, 3.0), (clock() + 3, 0.0)):
        stored = Stored(old.reply, made_at, old.fresh_until, old.expires_at, "", "", "")
        cache.put("a", stored, unix_now=clock(), fresh_seconds=10, stale_seconds=0)
        assert cache.get("a") == (stored, Found(stored.reply, age))


def test_no_entries_are_none(clock):
    cache = NearCache(0, now=clock)
    put(cache, "a", clock)
    assert held(cache, "a") == [False]


def test_only_the_reply_that_is_meant_is_discarded(clock):
    cache = NearCache(2, now=clock)
    earlier = put(cache, "a", clock)
    later = put(cache, "a", clock)
    cache.discard("a", earlier)
    assert cache.get("a") == (later, Found(later.reply))
