"""What is invalidated is used by no replica, and nothing is forgotten that was to be."""

from __future__ import annotations

import math
import os
import signal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway import invalidation
from llm_gateway.cache import Followed, Found, Lease, ResponseCache, Stored, cache_key
from llm_gateway.invalidation import Invalidations, Tags, bounded
from llm_gateway.redis_store import NoStore
from tests.llm_gateway.conftest import TTL_SECONDS
from tests.llm_gateway.scripted_backend import asking, reply, until
from tests.llm_gateway.test_leases import outcome

TABLE = "ion:v2:invalidations"
REQUEST = asking(persona="Lua", scope="user-1")
KEY = cache_key(REQUEST)


async def put(cache: ResponseCache, *, made_at: float | None = None, lease: Lease | None = None) -> None:
    await cache.put(KEY, REQUEST, reply(), made_at=made_at or cache._unix_now(), lease=lease)


def local_cache(clock) -> ResponseCache:
    return ResponseCache(NoStore(), ttl_seconds=TTL_SECONDS, max_entries=10, now=clock, unix_now=clock)


MATCHING = [
    {"persona": "Lua"},
    {"persona": "LUA"},
    {"model": "model-a"},
    {"scope": "user-1"},
    {"persona": "lua", "model": "model-a", "scope": "user-1"},
    {},
]
OTHERS = [
    {"persona": "Lu"},
    {"persona": "Nana"},
    {"model": "model-b"},
    {"scope": ""},
    {"scope": "user-2"},
    {"persona": "Lua", "scope": "user-2"},
    {"persona": "Nana", "model": "model-a", "scope": "user-1"},
]


@pytest.mark.parametrize("fields", MATCHING, ids=str)
async def test_what_matches_all_that_is_given_is_used_no_more(fields, clock):
    cache = local_cache(clock)
    await put(cache)
    assert await cache.invalidate(**fields) is False
    assert cache.get_near(KEY) is None
    assert (cache.statistics.invalidated, cache.near_entries) == (1, 0)


@pytest.mark.parametrize("fields", OTHERS, ids=str)
async def test_what_does_not_match_is_still_used(fields, clock):
    cache = local_cache(clock)
    await put(cache)
    await cache.invalidate(**fields)
    assert cache.get_near(KEY) == Found(reply())


async def test_what_is_made_afterwards_is_used(clock):
    cache = local_cache(clock)
    await cache.invalidate(persona="Lua")
    clock.at += 0.001
    await put(cache)
    assert cache.get_near(KEY) == Found(reply())


async def test_what_was_begun_before_is_not_stored(replica, redis, clock):
    cache = await replica()
    began_at = clock()
    clock.at += 1
    await cache.invalidate(persona="Lua")
    clock.at += 1
    await put(cache, made_at=began_at)
    assert cache.get_near(KEY) is None
    assert not await redis.exists(KEY)
    assert cache.statistics.stored == 0


async def test_what_another_replica_began_before_and_stored_is_not_used(replica, clock):
    here, there = await replica(), await replica()
    began_at = clock()
    clock.at += 1
    await here.invalidate(persona="Lua")
    await put(there, made_at=began_at)  # that has not heard of it yet
    assert isinstance(await here.enter(KEY, streamed=False), Lease)
    assert here.statistics.invalidated == 1


async def test_the_memories_of_all_replicas_forget(replica):
    here, *others = [await replica() for _ in range(3)]
    await put(here)
    for cache in others:
        assert isinstance(await cache.enter(KEY, streamed=False), Found)
    assert await here.invalidate(persona="Lua") is True
    assert here.get_near(KEY) is None
    await until(lambda: not any(cache.get_near(KEY) for cache in others))
    assert [cache.statistics.invalidated for cache in (here, *others)] == [1, 1, 1]
    assert isinstance(await others[0].enter(KEY, streamed=False), Lease)


async def test_a_new_replica_knows_it_from_its_first_request_on(replica):
    here = await replica()
    await put(here)
    await here.invalidate(persona="Lua")
    assert isinstance(await (await replica()).enter(KEY, streamed=False), Lease)


async def test_a_replica_that_was_away_knows_it_once_it_is_back(replica, redis, redis_server):
    away = await replica()
    await put(away)
    pid = (await redis.info("server"))["process_id"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await away.enter("another", streamed=False)
        await until(lambda: not away._store.connected)
    finally:
        os.kill(pid, signal.SIGCONT)
    await redis.zadd(TABLE, {b'["lua",null,null]': away._unix_now()})
    assert away.get_near(KEY)
    await until(lambda: away._store.connected)
    assert isinstance(await away.enter(KEY, streamed=False), Lease)
    assert away.get_near(KEY) is None


async def test_without_redis_it_is_for_this_replica_alone_and_says_so(replica):
    cache = await replica("redis://127.0.0.1:1")
    await put(cache)
    assert await cache.invalidate(persona="Lua") is False
    assert cache.get_near(KEY) is None


async def test_who_followed_before_it_still_has_the_reply_and_who_comes_after_does_not(replica, clock):
    here, before, after = [await replica() for _ in range(3)]
    lease = await here.enter(KEY, streamed=False)
    began_at = clock()
    clock.at += 1
    earlier = await before.enter(KEY, streamed=False)
    clock.at += 1
    await here.invalidate(persona="Lua")
    clock.at += 1
    later = await after.enter(KEY, streamed=False)
    assert isinstance(later, Followed)
    await until(lambda: len(before._invalidations) == len(after._invalidations) == 1)
    await put(here, made_at=began_at, lease=lease)
    assert await outcome(earlier) == Found(reply())
    assert before.get_near(KEY) is None
    assert await outcome(later) is None


async def test_the_table_in_redis_has_an_end_and_no_text_of_a_scope(replica, redis):
    cache = await replica()
    await cache.invalidate(scope="user-1")
    ((member, _),) = await redis.zrange(TABLE, 0, -1, withscores=True)
    assert b"user-1" not in member
    assert 0 < await redis.pttl(TABLE) <= invalidation.KEEP_SECONDS * 1000


async def test_repeated_ones_are_one_with_the_latest_time(replica, redis, clock):
    here, ahead = await replica(), await replica()
    clock.at += 5
    await ahead.invalidate(persona="Lua")
    latest = clock()
    clock.at -= 5
    await here.invalidate(persona="lua")
    ((_, at),) = await redis.zrange(TABLE, 0, -1, withscores=True)
    assert at == latest


async def test_old_ones_are_dropped_once_no_reply_is_that_old(replica, redis, clock):
    cache = await replica()
    await cache.invalidate(persona="old")
    clock.at += invalidation.KEEP_SECONDS + 1
    await cache.invalidate(persona="new")
    assert await redis.zrange(TABLE, 0, -1) == [b'["new",null,null]']
    assert len(cache._invalidations) == 1


def test_they_are_kept_as_long_as_any_reply():
    table = Invalidations(NoStore(), keep_seconds=10 * invalidation.KEEP_SECONDS)
    assert table._keep_seconds == 10 * invalidation.KEEP_SECONDS


async def test_too_many_become_one_that_covers_all_in_redis_as_well(replica, redis, clock, monkeypatch):
    monkeypatch.setattr(Invalidations.__init__, "__kwdefaults__", {"max_entries": 3, "unix_now": clock})
    cache = await replica()
    for number in range(5):
        clock.at += 1
        await cache.invalidate(persona=f"p{number}")
    entries = await redis.zrange(TABLE, 0, -1, withscores=True)
    at = clock()
    expected = {
        b"[null,null,null]": at - 2,
        b'["p3",null,null]': at - 1,
        b'["p4",null,null]': at,
    }
    assert dict(entries) == expected
    assert len(cache._invalidations) == 3


FOREIGN = {b"foreign": 1e9, b"[1,2,3]": 1e9, b'["lua",null]': 1e9, b'["lua",null,null]': 1e18, b"\xff": math.inf}


async def test_what_others_wrote_into_the_table_is_left_out(replica, redis, clock):
    cache = await replica()
    await put(cache)
    await redis.zadd(TABLE, FOREIGN | {b'["nana",null,null]': clock()})
    await until(lambda: len(cache._invalidations) == 1)
    assert cache.get_near(KEY) == Found(reply())


async def test_a_table_that_is_none_is_left_out(replica, redis):
    await redis.set(TABLE, "foreign")
    cache = await replica()
    await put(cache)
    assert await cache.invalidate(persona="Lua") is False
    assert cache.get_near(KEY) is None
    assert cache._store.connected


names = st.sampled_from(["a", "b"])
patterns = st.builds(Tags, st.none() | names, st.none() | names, st.none() | names)
steps = st.lists(st.tuples(patterns, st.integers(1, 20).map(float)), max_size=20)


def latest(steps: list[tuple[Tags, float]], tags: Tags) -> float:
    """What `Invalidations.latest` says where nothing is left out."""
    matching = [
        at for pattern, at in steps if all(wanted in (None, tag) for wanted, tag in zip(pattern, tags, strict=True))
    ]
    return max(matching, default=-math.inf)


def of(tags: Tags) -> Stored:
    return Stored(reply(), 0.0, 0.0, 0.0, str(tags.persona).upper(), str(tags.model), str(tags.scope))


@given(steps)
def test_the_latest_that_matches_counts(steps):
    table = Invalidations(NoStore(), keep_seconds=1, unix_now=lambda: 20.0)
    table._note(steps)
    for tags in map(Tags._make, product("ab", repeat=3)):
        assert table.latest(of(tags)) == latest(steps, tags)


@given(steps, st.integers(1, 5))
def test_a_full_table_forgets_rather_too_much_than_too_little(steps, max_entries):
    table = Invalidations(NoStore(), keep_seconds=1, max_entries=max_entries, unix_now=lambda: 20.0)
    for step in steps:
        table._note([step])
        assert len(table) <= max_entries
    for tags in map(Tags._make, product("ab", repeat=3)):
        assert table.latest(of(tags)) >= latest(steps, tags)


@given(st.dictionaries(patterns, st.integers(0, 100).map(float), max_size=20), st.integers(1, 30))
def test_the_newest_are_kept_as_they_are(times, max_entries):
    kept = bounded(times, max_entries)
    if len(times) <= max_entries:
        assert kept == times
    oldest_kept = sorted(times.values())[-max_entries:][:1]
    changed = {tags for tags, at in times.items() if kept.get(tags) != at}
    assert all(times[tags] <= oldest_kept[0] or tags == Tags() for tags in changed)
