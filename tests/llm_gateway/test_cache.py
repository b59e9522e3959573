"""Who may share a reply, for how long, and what never counts as one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.cluster import key_slot

from llm_gateway.cache import Found, Lease, ResponseCache, Stored, cache_key
from llm_gateway.generation import CacheControl, FinishReason, GenerationRequest, Parameters, Prompt, Role, Turn
from llm_gateway.redis_store import NoStore, RedisStore
from llm_gateway.stored import encode, scope_hash
from tests.llm_gateway.conftest import TTL_SECONDS
from tests.llm_gateway.held_redis import held_redis
from tests.llm_gateway.scripted_backend import asking, reply

REQUEST = asking()
KEY = cache_key(REQUEST)
PROMPT = Prompt("", (Turn(Role.USER, "a"),))

# Few and short, so that equal requests and requests that run together are drawn often.
texts = st.text(alphabet="ab1", max_size=2)
turns = st.builds(Turn, st.sampled_from(Role), texts)
requests = st.builds(
    GenerationRequest,
    model=texts,
    prompt=st.builds(Prompt, texts, st.lists(turns, min_size=1, max_size=2).map(tuple)),
    parameters=st.builds(
        Parameters,
        temperature=st.sampled_from([None, 0.0, -0.0, 1.0, math.nextafter(1.0, 2.0)]),
        top_p=st.sampled_from([None, 0.5, 1.0]),
        max_output_tokens=st.sampled_from([0, 1, 11]),
        stop_sequences=st.lists(texts, max_size=2).map(tuple),
        response_json_schema=texts,
        minimal_thinking=st.booleans(),
    ),
    persona=texts,
    language=texts,
    scope=texts,
    max_input_tokens=st.sampled_from([0, 1, 11]),
)


@given(requests, requests)
def test_keys_are_equal_exactly_where_requests_are(one, other):
    assert (cache_key(one) == cache_key(other)) == (one == other)


@given(requests, st.data())
def test_each_field_alone_changes_the_key(request, data):
    other = data.draw(requests)
    for field in ("model", "prompt", "parameters", "persona", "language", "scope", "max_input_tokens"):
        changed = replace(request, **{field: getattr(other, field)})
        assert (cache_key(changed) == cache_key(request)) == (changed == request)


def test_a_schema_and_little_thinking_each_change_the_key_and_no_turn_can_stand_for_them():
    parameters = [
        Parameters(),
        Parameters(response_json_schema="{}"),
        Parameters(response_json_schema='{"a": 1}'),
        Parameters(minimal_thinking=True),
        Parameters(response_json_schema="{}", minimal_thinking=True),
    ]
    keys = {cache_key(GenerationRequest("m", PROMPT, each)) for each in parameters}
    said = (Turn(Role.USER, "a"), Turn(Role.USER, "response_json_schema"), Turn(Role.USER, "{}"))
    keys.add(cache_key(GenerationRequest("m", Prompt("", said))))
    assert len(keys) == 6


def test_temperatures_count_to_the_last_bit_and_zero_has_no_sign():
    keys = {
        temperature: cache_key(GenerationRequest("m", PROMPT, Parameters(temperature=temperature)))
        for temperature in (None, 0.0, 1.0, math.nextafter(1.0, 2.0))
    }
    assert len(set(keys.values())) == 4
    assert cache_key(GenerationRequest("m", PROMPT, Parameters(temperature=-0.0))) == keys[0.0]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Prompt("ab", (Turn(Role.USER, "c"),)), Prompt("a", (Turn(Role.USER, "bc"),))),
        (Prompt("", (Turn(Role.USER, "a"), Turn(Role.USER, "b"))), Prompt("", (Turn(Role.USER, "ab"),))),
        (Prompt("", (Turn(Role.USER, "a"),)), Prompt("", (Turn(Role.MODEL, "a"),))),
        (Prompt("user", (Turn(Role.USER, "a"),)), Prompt("", (Turn(Role.USER, "usera"),))),
    ],
)
def test_text_that_moves_over_a_border_changes_the_key(one, other):
    assert cache_key(GenerationRequest("m", one)) != cache_key(GenerationRequest("m", other))


def test_the_key_of_a_release_stays_what_it_is():
    assert cache_key(asking("안녕", scope="user-1")) == (
        "ion:v2:{d6fc1c4b4ddbb4e741457d1d873d0d46.a945802c85eeae280b06b0867e578b31f0277cbe61253ff604aaa422f5d88d0f}"
    )


def test_the_scope_is_a_part_of_the_key_that_can_be_seen():
    here, there = (cache_key(asking(scope=scope)) for scope in ("user-1", "user-2"))
    assert here.split(".")[0] == f"ion:v2:{{{scope_hash('user-1')}"
    assert there.split(".")[0] == f"ion:v2:{{{scope_hash('user-2')}"
    assert here.split(".")[1] == there.split(".")[1]
    assert "user-1" not in here


def test_all_that_belongs_to_a_request_is_in_one_slot_of_a_cluster():
    assert len({key_slot(f"{KEY}{part}".encode()) for part in ("", ":unary", ":unary:newest", ":stream:17")}) == 1
    assert key_slot(KEY.encode()) != key_slot(cache_key(asking("another")).encode())


def test_what_a_call_wants_of_the_cache_is_no_part_of_the_key():
    assert cache_key(replace(REQUEST, cache=CacheControl(bypass=True, max_age_seconds=1), may_hedge=False)) == KEY


async def put(cache: ResponseCache, text: str = "Hello!", *, key: str = KEY, **fields: object) -> None:
    """As who went alone."""
    await cache.put(key, asking(**fields), reply(text), made_at=cache._unix_now(), lease=None)


async def enter(cache: ResponseCache, **options: object) -> object:
    return await cache.enter(KEY, streamed=False, **options)


async def test_a_reply_is_near_after_it_was_put(clock):
    cache = ResponseCache(NoStore(), ttl_seconds=TTL_SECONDS, max_entries=10, now=clock, unix_now=clock)
    await put(cache)
    assert cache.get_near(KEY) == Found(reply())
    assert (cache.statistics.stored, cache.statistics.near_hits, cache.near_entries) == (1, 1, 1)


async def test_without_a_store_everyone_goes_alone():
    cache = ResponseCache(NoStore(), ttl_seconds=TTL_SECONDS, max_entries=10)
    assert await enter(cache) is None
    assert cache.statistics.misses == 1


async def test_a_cut_reply_is_kept_nowhere(replica, redis, clock):
    cache = await replica()
    await cache.put(KEY, REQUEST, reply(finish_reason=FinishReason.MAX_TOKENS), made_at=clock(), lease=None)
    assert cache.get_near(KEY) is None
    assert await redis.keys() == []
    assert cache.statistics.stored == 0


async def test_another_replica_has_the_reply_and_then_has_it_near(replica, clock):
    here, there = await replica(), await replica()
    await put(here, "안녕하세요")
    assert there.get_near(KEY) is None
    clock.at += 7
    assert await enter(there) == Found(reply("안녕하세요"), 7.0)
    assert there.get_near(KEY) == Found(reply("안녕하세요"), 7.0)
    assert (there.statistics.shared_hits, there.statistics.near_hits, there.statistics.misses) == (1, 1, 0)


async def test_a_stored_reply_answers_streams_as_well(replica):
    here, there = await replica(), await replica()
    await put(here)
    assert await there.enter(KEY, streamed=True) == Found(reply())


async def test_a_hit_is_one_round_trip(replica, redis):
    here, there = await replica(), await replica()
    await put(here)
    evals = (await redis.info("commandstats"))["cmdstat_eval"]["calls"]
    assert isinstance(await enter(there), Found)
    assert (await redis.info("commandstats"))["cmdstat_eval"]["calls"] - evals == 1


async def test_redis_forgets_the_reply_in_time(replica, redis):
    await put(await replica())
    assert TTL_SECONDS * 1000 - 5000 < await redis.pttl(KEY) <= TTL_SECONDS * 1000


async def test_times_are_drawn_from_nine_tenths_to_all_of_the_whole(clock):
    for draw, seconds in ((0.0, 0.9 * TTL_SECONDS), (1.0, TTL_SECONDS)):
        cache = ResponseCache(
            NoStore(), ttl_seconds=TTL_SECONDS, max_entries=1, now=clock, unix_now=clock, draw=lambda draw=draw: draw
        )
        await put(cache)
        clock.at += seconds - 0.01
        assert cache.get_near(KEY)
        clock.at += 0.02
        assert cache.get_near(KEY) is None


async def test_a_reply_from_another_replica_is_not_kept_longer_than_its_own_time(replica, redis, clock):
    stored = Stored(reply(), clock(), clock() + 5, clock() + 5, "", "model-a", scope_hash(""))
    await redis.set(KEY, encode(stored))
    cache = await replica()
    assert await enter(cache) == Found(reply())
    clock.at += 5
    assert cache.get_near(KEY) is None
    assert isinstance(await enter(cache), Lease)
    assert cache.statistics.misses == 1


async def test_no_reply_that_is_too_old_answers(replica, clock):
    here, there = await replica(), await replica()
    await put(here)
    clock.at += 10
    for cache in (here, there):
        assert await enter(cache, max_age_seconds=10) == Found(reply(), 10.0)
        assert cache.get_near(KEY, max_age_seconds=10) == Found(reply(), 10.0)
        assert cache.get_near(KEY, max_age_seconds=9) is None
    assert isinstance(await enter(here, max_age_seconds=9), Lease)


async def test_a_stale_reply_answers_and_says_so(replica, clock):
    here, there = await replica(stale_seconds=30), await replica(stale_seconds=30)
    await put(here)
    clock.at += TTL_SECONDS + 1
    assert here.get_near(KEY) == await enter(there) == Found(reply(), TTL_SECONDS + 1, is_stale=True)
    assert (here.statistics.stale_hits, there.statistics.stale_hits) == (1, 1)
    clock.at += 29
    assert here.get_near(KEY) is None
    assert isinstance(await enter(there), Lease)


async def test_a_stale_reply_is_kept_in_redis_as_long_as_it_is_used(replica, redis):
    await put(await replica(stale_seconds=30))
    assert TTL_SECONDS * 1000 < await redis.pttl(KEY) <= (TTL_SECONDS + 30) * 1000


async def test_one_replica_makes_a_stale_reply_anew_and_the_others_take_it(replica, clock):
    here, there = await replica(stale_seconds=30), await replica(stale_seconds=30)
    await put(here, "old")
    await enter(there)
    clock.at += TTL_SECONDS + 1
    lease = await enter(here, accept_stale=False)
    assert isinstance(lease, Lease)
    await here.put(KEY, REQUEST, reply("new"), made_at=clock(), lease=lease)
    assert there.get_near(KEY).is_stale
    assert await enter(there, accept_stale=False) == there.get_near(KEY) == Found(reply("new"))


POISON = {
    "empty": b"",
    "another program's": b"hello",
    "the last version's": b"ion1" + b"\0" * 100,
    "with a header that looks right": b"ion2p" + b"9" * 26 + b"damaged",
    "a cut reply": encode(
        Stored(reply(finish_reason=FinishReason.MAX_TOKENS), 1e9, 9e9, 9e9, "", "model-a", scope_hash(""))
    ),
}


@pytest.mark.parametrize("value", POISON.values(), ids=POISON.keys())
async def test_a_poisoned_value_is_counted_and_written_over(value, replica, redis):
    await redis.set(KEY, value)
    cache = await replica()
    lease = await enter(cache)
    assert isinstance(lease, Lease)
    assert cache.get_near(KEY) is None
    assert (cache.statistics.foreign_values, cache.statistics.misses) == (1, 1)
    await cache.put(KEY, REQUEST, reply(), made_at=cache._unix_now(), lease=lease)
    assert await enter(await replica()) == Found(reply())


async def test_a_value_of_another_type_is_written_over(replica, redis):
    await redis.lpush(KEY, "item")
    cache = await replica()
    lease = await enter(cache)
    assert isinstance(lease, Lease)
    await cache.put(KEY, REQUEST, reply(), made_at=cache._unix_now(), lease=lease)
    assert await enter(await replica()) == Found(reply())


async def test_what_redis_holds_has_no_text_in_its_keys(replica, redis):
    cache = await replica()
    key = cache_key(asking("secret", scope="user-1", persona="Lua"))
    lease = await cache.enter(key, streamed=True)
    lease.publish("a piece")
    await put(cache, key=key, persona="Lua", scope="user-1")
    await cache.invalidate(persona="Lua", scope="user-1")
    assert len(await redis.keys()) == 5  # reply, lease, fence, log, invalidations
    assert not any(word in name for name in await redis.keys() for word in (b"secret", b"user", b"Lua", b"Hello"))


async def test_a_redis_that_is_late_is_not_waited_for(replica, redis_server):
    async with held_redis(redis_server) as held:
        cache = await replica(held.url, wait_seconds=0.01)
        held.hold()
        assert await enter(cache) is None
        await put(cache)
        assert cache.get_near(KEY) == Found(reply())
        assert cache.late_commands == 2
        held.release()


async def test_a_redis_that_is_away_is_not_asked(replica):
    cache = await replica("redis://127.0.0.1:1")
    assert await enter(cache) is None
    await put(cache)
    assert cache.get_near(KEY) == Found(reply())
    assert (cache.late_commands, cache.statistics.misses) == (0, 1)


async def test_a_restarted_replica_finds_what_it_stored(replica):
    await put(await replica())
    assert await enter(await replica()) == Found(reply())


async def test_off_is_said_where_nothing_can_be_kept(redis_server):
    assert not ResponseCache(NoStore(), ttl_seconds=1, max_entries=0).enabled
    assert ResponseCache(NoStore(), ttl_seconds=1, max_entries=1).enabled
    store = await RedisStore.open(redis_server.connection_url)
    assert ResponseCache(store, ttl_seconds=1, max_entries=0).enabled
    await store.close()
