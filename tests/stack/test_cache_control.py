"""What a call may say about the cache, who shares replies with whom, and how stored ones are forgotten or renewed."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from redis import Redis

from ion.llm.v1 import llm_pb2
from tests.stack.harness import Gateway, llm_gateway, until, vertex_env

HIT, MISS = llm_pb2.CACHE_STATUS_HIT, llm_pb2.CACHE_STATUS_MISS
OFF, STALE = llm_pb2.CACHE_STATUS_OFF, llm_pb2.CACHE_STATUS_STALE
BYPASS = llm_pb2.CacheControl(bypass=True)
NO_STORE = llm_pb2.CacheControl(no_store=True)
TTL_SECONDS = 1800


def max_age(seconds: int) -> llm_pb2.CacheControl:
    return llm_pb2.CacheControl(max_age_seconds=seconds)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def env(_vertex, redis_server) -> dict[str, str]:
    return vertex_env({"us-central1": _vertex.endpoint}, REDIS_URL=redis_server.connection_url)


@pytest.fixture
def redis(redis_server) -> Redis:
    """Holding no replies but those of the test."""
    client = Redis.from_url(redis_server.connection_url)
    client.flushall()
    return client


async def asked(gateway: Gateway, text: str, **fields) -> tuple[str, int]:
    reply = await gateway.generate(text, **fields)
    return reply.text, reply.generation.cache


async def test_bypass_makes_a_new_reply_that_takes_the_place_of_the_stored_one(here, there, vertex, unique):
    text = unique("hello")
    vertex.answer("first")
    assert await asked(here, text) == ("first", MISS)
    vertex.answer("second")
    assert await asked(here, text) == ("first", HIT)
    assert await asked(here, text, cache_control=BYPASS) == ("second", OFF)
    for gateway in (here, there):
        assert await asked(gateway, text) == ("second", HIT)


async def test_bypass_does_not_join_a_call_under_way(here, vertex, unique):
    text = unique("hello")
    vertex.hang()
    shared = asyncio.create_task(here.generate(text))
    await vertex.wait_for_calls(1)
    apart = asyncio.create_task(here.generate(text, cache_control=BYPASS))
    await vertex.wait_for_calls(2)
    vertex.release()
    assert ((await shared).generation.cache, (await apart).generation.cache) == (MISS, OFF)


async def test_no_store_leaves_nothing_behind_and_takes_what_is_stored(here, there, redis, vertex, unique):
    text = unique("hello")
    assert (await asked(here, text, cache_control=NO_STORE))[1] == MISS
    assert not redis.keys("ion:*}")
    assert (await asked(here, text))[1] == MISS
    for gateway in (here, there):
        assert (await asked(gateway, text, cache_control=NO_STORE))[1] == HIT
    assert len(vertex.calls) == 2


async def test_max_age_takes_no_older_reply_from_memory_or_from_redis(here, there, vertex, unique):
    text = unique("hello")
    await here.generate(text)

    async def is_a_second_old() -> bool:
        return (await here.generate(text)).generation.age_seconds >= 1

    await until(is_a_second_old)
    for gateway in (here, there):
        assert (await asked(gateway, text, cache_control=max_age(60)))[1] == HIT
    assert len(vertex.calls) == 1
    assert (await asked(here, text, cache_control=max_age(0)))[1] == MISS  # from memory
    other = unique("hello")
    await here.generate(other)
    assert (await asked(there, other, cache_control=max_age(0)))[1] == MISS  # from Redis
    assert len(vertex.calls) == 4


async def test_scopes_do_not_share_replies(here, there, vertex, unique):
    text = unique("hello")
    for scope in ("", "tenant-1", "tenant-2"):
        vertex.answer(f"for {scope}")
        assert await asked(here, text, scope=scope) == (f"for {scope}", MISS)
    for scope in ("", "tenant-1", "tenant-2"):
        assert await asked(there, text, scope=scope) == (f"for {scope}", HIT)


async def test_history_without_a_scope_is_neither_stored_nor_shared(here, redis, vertex, unique):
    text = unique("hello")
    turns = [(llm_pb2.ROLE_USER, text), (llm_pb2.ROLE_MODEL, "yes?"), (llm_pb2.ROLE_USER, "and then?")]
    prompt = llm_pb2.Prompt(contents=[llm_pb2.Content(role=role, text=said) for role, said in turns])
    vertex.hang()
    at_once = [asyncio.create_task(here.generate("", prompt=prompt)) for _ in range(2)]
    await vertex.wait_for_calls(2)
    vertex.release()
    assert {(await call).generation.cache for call in at_once} == {OFF}
    assert not redis.keys("ion:*}")
    assert (await asked(here, "", prompt=prompt, scope="user-1"))[1] == MISS
    assert (await asked(here, "", prompt=prompt, scope="user-1"))[1] == HIT


async def test_invalidation_reaches_all_replicas_and_only_what_it_names(here, there, vertex, unique):
    text, persona = unique("hello"), unique("persona")
    vertex.answer("old")
    for gateway in (here, there):
        await gateway.generate(text, persona=persona)
        await gateway.generate(text, persona="Lua")
    assert len(vertex.calls) == 2
    vertex.answer("new")
    answer = await here.stub.InvalidateCache(llm_pb2.InvalidateCacheRequest(persona=persona), timeout=10)
    assert answer.shared
    assert await asked(here, text, persona=persona) == ("new", MISS)

    async def has_it_from_redis() -> bool:
        return await asked(there, text, persona=persona) == ("new", HIT)

    await until(has_it_from_redis)
    for gateway in (here, there):
        assert await asked(gateway, text, persona="Lua") == ("old", HIT)
    assert (await there.statistics()).cache.invalidated > 0
    assert len(vertex.calls) == 3


async def test_what_is_in_redis_is_forgotten_by_scope_too(here, there, vertex, unique):
    text = unique("hello")
    for scope in ("tenant-1", "tenant-2"):
        await here.generate(text, scope=scope)
    await here.stub.InvalidateCache(llm_pb2.InvalidateCacheRequest(scope="tenant-1"), timeout=10)

    async def is_forgotten() -> bool:
        return (await there.generate(text, scope="tenant-1", cache_control=NO_STORE)).generation.cache == MISS

    await until(is_forgotten)
    assert (await asked(there, text, scope="tenant-2"))[1] == HIT


def reply_key(redis: Redis) -> bytes:
    (key,) = redis.keys("ion:*}")
    return key


@pytest.mark.parametrize("poison", [lambda value: b"nonsense", lambda value: value[:-1], lambda value: b""])
async def test_a_poisoned_value_is_ignored_counted_and_replaced(here, there, redis, vertex, unique, poison):
    text = unique("hello")
    await here.generate(text)
    key = reply_key(redis)
    redis.set(key, poison(redis.get(key)))
    before = (await there.statistics()).cache.foreign_values
    vertex.answer("sound")
    assert await asked(there, text) == ("sound", MISS)
    assert (await there.statistics()).cache.foreign_values == before + 1
    assert b"sound" in redis.get(key)


async def test_a_value_of_another_kind_is_replaced(here, redis, vertex, unique):
    text = unique("hello")
    await here.generate(text)
    key = reply_key(redis)
    await here.stub.InvalidateCache(llm_pb2.InvalidateCacheRequest(scope=""), timeout=10)
    redis.delete(key)
    redis.rpush(key, "a", "list")
    assert (await asked(here, text))[1] == MISS
    assert redis.type(key) == b"string"


async def test_large_replies_are_compressed_and_lifetimes_differ(here, there, redis, vertex, unique):
    large = "the same again and again. " * 400
    vertex.answer(large)
    texts = [unique("hello") for _ in range(20)]
    for text in texts:
        await here.generate(text)
    keys = redis.keys("ion:*}")
    assert len(keys) == len(texts)
    assert all(redis.strlen(key) < len(large) / 5 for key in keys)
    lifetimes = [redis.pttl(key) / 1000 for key in keys]
    assert all(0.89 * TTL_SECONDS < seconds <= TTL_SECONDS for seconds in lifetimes)
    assert max(lifetimes) - min(lifetimes) > 0.02 * TTL_SECONDS
    assert await asked(there, texts[0]) == (large, HIT)


async def test_statistics_tell_where_replies_came_from(here, there, vertex, unique):
    text = unique("hello")
    first, second = (await here.statistics()).cache, (await there.statistics()).cache
    for _ in range(3):
        await here.generate(text)
        await there.generate(text)
    at_first, at_second = (await here.statistics()).cache, (await there.statistics()).cache
    assert (at_first.misses, at_first.stored) == (first.misses + 1, first.stored + 1)
    assert (at_first.near_hits, at_first.shared_hits) == (first.near_hits + 2, first.shared_hits)
    assert (at_second.misses, at_second.stored) == (second.misses, second.stored)
    assert (at_second.near_hits, at_second.shared_hits) == (second.near_hits + 2, second.shared_hits + 1)
    assert at_first.near_entries == first.near_entries + 1


async def test_a_stale_reply_answers_while_a_new_one_is_made(env, vertex, unique):
    text = unique("hello")
    vertex.answer("old")
    async with llm_gateway(env | {"ION_CACHE_TTL_SECONDS": "1", "ION_CACHE_STALE_SECONDS": "60"}) as gateway:
        await gateway.generate(text)
        vertex.answer("new")
        vertex.hang()
        async with asyncio.timeout(10):
            while (came := await asked(gateway, text)) == ("old", HIT):
                await asyncio.sleep(0.02)
        assert came == ("old", STALE)
        await vertex.wait_for_calls(2)
        assert await asked(gateway, text) == ("old", STALE)  # nobody waits for it, and nobody makes a third
        vertex.release()

        async def is_renewed() -> bool:
            return (await gateway.generate(text)).text == "new"

        await until(is_renewed)
        assert (await gateway.statistics()).cache.stale_hits >= 2
    assert len(vertex.calls) == 2
