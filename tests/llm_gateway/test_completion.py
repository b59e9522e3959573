"""One model call for equal requests, here and in other replicas; stored replies; shedding, trimming and the account."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis import telemetry
from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from chassis.observability import tracing
from llm_gateway.admission import Admission
from llm_gateway.budgets import RatioBudget
from llm_gateway.cache import ResponseCache
from llm_gateway.catalogue import Catalogue
from llm_gateway.completion import Completion
from llm_gateway.flights import CacheStatus, CacheTier, Completed
from llm_gateway.generation import (
    CacheControl,
    FinishReason,
    GenerationRequest,
    ModelBlocked,
    ModelInterrupted,
    ModelQuota,
    ModelUnavailable,
    Overloaded,
    Parameters,
    Prompt,
    PromptTooLarge,
    Role,
    Turn,
    Usage,
)
from llm_gateway.locations import Locations
from llm_gateway.means import HedgeMode, Means
from llm_gateway.model_calls import ModelCalls
from llm_gateway.redis_store import NoStore
from tests.llm_gateway.conftest import TTL_SECONDS, Clock, NewReplica
from tests.llm_gateway.scripted_backend import (
    ScriptedBackend,
    asking,
    nothing_left_behind,  # noqa: F401
    reply,
    soon,
    until,
)
from tests.observed import recorded_spans

HIT, MISS, COALESCED = CacheStatus.HIT, CacheStatus.MISS, CacheStatus.COALESCED
OFF, STALE = CacheStatus.OFF, CacheStatus.STALE
CUT = reply("Cut sho", finish_reason=FinishReason.MAX_TOKENS)
BYPASS, NO_STORE = CacheControl(bypass=True), CacheControl(no_store=True)


@pytest.fixture(autouse=True)
def patient_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a slow machine changes nothing."""
    monkeypatch.setattr("llm_gateway.redis_store.ANSWER_SECONDS", 10.0)
    monkeypatch.setattr("llm_gateway.leases.FIRST_LEASE_SECONDS", 10.0)


def completion_of(
    backend: ScriptedBackend,
    cache: ResponseCache | None = None,
    *,
    max_entries: int = 100,
    admission: Admission | None = None,
    **options,
) -> Completion:
    means = Means(backend, Locations(backend.locations), hedge_mode=HedgeMode.REPLY, draw=lambda: 0.0)
    return Completion(
        ModelCalls(means),
        cache or ResponseCache(NoStore(), ttl_seconds=60, max_entries=max_entries),
        admission or Admission(1000, 1000),
        **{"catalogue": Catalogue.load()} | options,
    )


def local_cache(clock: Clock, *, stale_seconds: float = 0.0, max_entries: int = 100) -> ResponseCache:
    return ResponseCache(
        NoStore(),
        ttl_seconds=TTL_SECONDS,
        max_entries=max_entries,
        stale_seconds=stale_seconds,
        now=clock,
        unix_now=clock,
        draw=lambda: 1.0,
    )


def chatting(*texts: str, scope: str = "") -> GenerationRequest:
    """A conversation whose last turn is the user's."""
    roles = [Role.USER if number % 2 == len(texts) % 2 else Role.MODEL for number in range(1, len(texts) + 1)]
    turns = tuple(Turn(role, text) for role, text in zip(roles, texts, strict=True))
    return replace(asking(scope=scope), prompt=Prompt("You are Lua.", turns))


class Streaming:
    """One who reads a stream; `text` and `completed` are what has come so far."""

    def __init__(self, completion: Completion, request: GenerationRequest, deadline: Deadline | None = None) -> None:
        self.pieces: list[str] = []
        self.completed: Completed | None = None
        self.task = asyncio.create_task(self._read(completion.stream(request, deadline or soon())))

    async def _read(self, stream) -> Completed:
        async with aclosing(stream) as items:
            async for item in items:
                assert self.completed is None  # it is the last
                if isinstance(item, Completed):
                    self.completed = item
                else:
                    self.pieces.append(item)
        return self.completed

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    async def has(self, text: str) -> None:
        await until(lambda: self.text == text)


def generating(completion: Completion, *requests: GenerationRequest) -> list[asyncio.Task[Completed]]:
    return [asyncio.create_task(completion.generate(request, soon())) for request in requests]


async def called(backend: ScriptedBackend, count: int = 1) -> None:
    await until(lambda: len(backend.calls) == count)


# Stored replies


async def test_first_a_miss_then_a_hit():
    backend = ScriptedBackend()
    completion = completion_of(backend)
    first = await completion.generate(asking(), soon())
    assert (first.reply, first.cache, first.attempts, first.lost_usage) == (reply(), MISS, 1, Usage())
    second = await completion.generate(asking(), soon())
    assert (second.reply, second.cache, second.attempts) == (reply(), HIT, 0)
    assert len(backend.calls) == 1


async def test_a_near_hit_makes_no_task():
    completion = completion_of(ScriptedBackend())
    await completion.generate(asking(), soon())
    with pytest.raises(StopIteration) as ended:
        completion.generate(asking(), soon()).send(None)  # would yield to the loop if it waited for anything
    assert ended.value.value.cache is HIT


async def test_a_hit_replays_as_a_stream_and_a_stream_is_kept():
    text = "Some words. " * 100
    backend = ScriptedBackend(reply(text))
    completion = completion_of(backend)
    first = Streaming(completion, asking())
    assert (await first.task).cache is MISS
    again = Streaming(completion, asking())
    assert (await again.task).cache is HIT
    assert first.text == again.text == text
    assert len(again.pieces) > 1
    assert (await completion.generate(asking(), soon())).cache is HIT
    assert len(backend.calls) == 1


async def test_scopes_never_share():
    backend = ScriptedBackend(reply("for one"), reply("for two"))
    completion = completion_of(backend)
    answers = [await completion.generate(asking(scope=scope), soon()) for scope in ("one", "two", "one")]
    assert [(answer.reply.text, answer.cache) for answer in answers] == [
        ("for one", MISS),
        ("for two", MISS),
        ("for one", HIT),
    ]


@pytest.mark.parametrize("outcome", [ModelBlocked(), CUT])
async def test_failures_blocked_and_cut_replies_are_not_kept(outcome):
    backend = ScriptedBackend(outcome)
    completion = completion_of(backend)
    await asyncio.gather(completion.generate(asking(), soon()), return_exceptions=True)
    assert (await completion.generate(asking(), soon())).cache is MISS
    assert len(backend.calls) == 2


async def test_a_stream_that_breaks_off_is_not_kept():
    backend = ScriptedBackend()
    completion = completion_of(backend)
    backend.dictate("here").say("Half ", ModelUnavailable())
    stream = Streaming(completion, asking())
    with pytest.raises(ModelInterrupted):
        await stream.task
    assert stream.text == "Half "
    assert (await completion.generate(asking(), soon())).cache is MISS


async def test_off_calls_the_model_each_time():
    backend = ScriptedBackend()
    completion = completion_of(backend, max_entries=0)
    for _ in range(2):
        assert (await completion.generate(asking(), soon())).cache is OFF
    assert len(backend.calls) == 2


# What a request wants of the cache


async def test_bypass_reads_nothing_and_is_kept():
    backend = ScriptedBackend(reply("old"), reply("new"))
    completion = completion_of(backend)
    await completion.generate(asking(), soon())
    bypassing = await completion.generate(asking(cache=BYPASS), soon())
    assert (bypassing.reply.text, bypassing.cache) == ("new", OFF)
    assert (await completion.generate(asking(), soon())).reply.text == "new"


async def test_bypass_joins_nobody_and_nobody_joins_it():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = generating(completion, asking(), asking(cache=BYPASS), asking(cache=BYPASS), asking())
    await called(backend, 3)
    backend.release()
    assert [answer.cache for answer in await asyncio.gather(*asked)] == [MISS, OFF, OFF, COALESCED]


async def test_no_store_is_answered_by_what_is_stored_and_leaves_nothing():
    backend = ScriptedBackend(reply("private"), reply("public"))
    completion = completion_of(backend)
    assert (await completion.generate(asking(cache=NO_STORE), soon())).cache is MISS
    assert (await completion.generate(asking(), soon())).reply.text == "public"
    assert (await completion.generate(asking(cache=NO_STORE), soon())).reply.text == "public"
    assert len(backend.calls) == 2


async def test_no_store_is_not_shared():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = generating(completion, asking(cache=NO_STORE), asking())
    await called(backend, 2)
    backend.release()
    assert [answer.cache for answer in await asyncio.gather(*asked)] == [MISS, MISS]


async def test_no_store_leaves_nothing_for_other_replicas(replica: NewReplica, redis):
    backend = ScriptedBackend()
    await completion_of(backend, await replica()).generate(asking(cache=NO_STORE), soon())
    other = completion_of(backend, await replica())
    await asyncio.wait_for(other.generate(asking(), soon()), 5)  # nor a lease that it would have to wait for
    assert len(backend.calls) == 2


async def test_max_age_asks_anew_where_the_stored_reply_is_older(clock: Clock):
    backend = ScriptedBackend(reply("old"), reply("new"))
    completion = completion_of(backend, local_cache(clock), unix_now=clock)
    await completion.generate(asking(), soon())
    clock.at += 10
    young_enough = await completion.generate(asking(cache=CacheControl(max_age_seconds=10)), soon())
    assert (young_enough.reply.text, young_enough.cache, young_enough.age_seconds) == ("old", HIT, 10.0)
    too_old = await completion.generate(asking(cache=CacheControl(max_age_seconds=9)), soon())
    assert (too_old.reply.text, too_old.cache) == ("new", MISS)


async def test_max_age_holds_for_what_another_request_is_about_to_find(replica: NewReplica, clock: Clock):
    backend = ScriptedBackend(reply("old"), reply("new"))
    await completion_of(backend, await replica(), unix_now=clock).generate(asking(), soon())
    clock.at += 10
    completion = completion_of(backend, await replica(), unix_now=clock)
    any_age, young = generating(completion, asking(), asking(cache=CacheControl(max_age_seconds=5)))
    assert (await any_age).reply.text == "old"
    assert (await young).reply.text == "new"


async def test_history_without_a_scope_is_neither_stored_nor_shared():
    backend = ScriptedBackend()
    completion = completion_of(backend)
    for _ in range(2):
        assert (await completion.generate(chatting("Hi", "Hello", "And?"), soon())).cache is OFF
    backend.hold()
    asked = generating(completion, *[chatting("Hi", "Hello", "And?")] * 2)
    await called(backend, 4)
    backend.release()
    assert {answer.cache for answer in await asyncio.gather(*asked)} == {OFF}
    assert (completion.cache.statistics.stored, completion.cache.near_entries) == (0, 0)


async def test_history_of_a_scope_is_stored():
    completion = completion_of(ScriptedBackend())
    request = chatting("Hi", "Hello", "And?", scope="user 1")
    answers = [await completion.generate(request, soon()) for _ in range(2)]
    assert [answer.cache for answer in answers] == [MISS, HIT]


# Stale replies


async def stale(backend: ScriptedBackend, clock: Clock, **options) -> Completion:
    """It holds a reply that is stale."""
    completion = completion_of(backend, local_cache(clock, stale_seconds=30), unix_now=clock, **options)
    await completion.generate(asking(), soon())
    clock.at += TTL_SECONDS + 1
    return completion


async def test_a_stale_reply_answers_at_once_and_one_new_one_is_made(clock: Clock):
    backend = ScriptedBackend(reply("old"), reply("new"))
    completion = await stale(backend, clock)
    backend.hold()
    for _ in range(3):
        answer = await completion.generate(asking(), soon())
        assert (answer.reply.text, answer.cache, answer.attempts) == ("old", STALE, 0)
        assert answer.age_seconds == TTL_SECONDS + 1
    stream = Streaming(completion, asking())
    assert ((await stream.task).cache, stream.text) == (STALE, "old")
    await called(backend, 2)
    backend.release()
    await until(lambda: completion.cache.statistics.stored == 2)
    answer = await completion.generate(asking(), soon())
    assert (answer.reply.text, answer.cache) == ("new", HIT)
    assert len(backend.calls) == 2


async def test_a_refresh_that_fails_harms_nobody_and_is_tried_again(clock: Clock):
    backend = ScriptedBackend(reply("old"), ModelBlocked(), reply("new"))
    completion = await stale(backend, clock)
    for count in (2, 3):
        assert (await completion.generate(asking(), soon())).cache is STALE
        await called(backend, count)
        await until(lambda: not completion._flights)
    assert (await completion.generate(asking(), soon())).reply.text == "new"


async def test_a_stale_reply_is_not_made_anew_for_who_may_not_store_it(clock: Clock):
    backend = ScriptedBackend(reply("old"))
    completion = await stale(backend, clock)
    assert (await completion.generate(asking(cache=NO_STORE), soon())).cache is STALE
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(backend.calls) == 1


async def test_a_refresh_has_a_time_of_its_own(clock: Clock):
    backend = ScriptedBackend(reply("old"))
    completion = await stale(backend, clock, request_timeout_seconds=0.05)
    backend.hold()
    assert (await completion.generate(asking(), soon())).cache is STALE
    await called(backend, 2)
    assert backend.calls[1].timeout_seconds <= 0.05
    await until(lambda: not completion._flights)


async def test_a_stale_reply_of_another_replica_answers_and_one_new_one_is_made(replica: NewReplica, clock: Clock):
    backend = ScriptedBackend(reply("old"), reply("new"))
    await completion_of(backend, await replica(stale_seconds=30), unix_now=clock).generate(asking(), soon())
    clock.at += TTL_SECONDS + 1
    completion = completion_of(backend, await replica(stale_seconds=30), unix_now=clock)
    answer = await completion.generate(asking(), soon())
    assert (answer.reply.text, answer.cache) == ("old", STALE)
    await called(backend, 2)
    await until(lambda: not completion._flights)
    assert (await completion.generate(asking(), soon())).reply.text == "new"


async def test_close_ends_what_is_made_in_the_background(clock: Clock):
    backend = ScriptedBackend(reply("old"))
    completion = await stale(backend, clock)
    backend.hold()
    await completion.generate(asking(), soon())
    await called(backend, 2)
    await completion.close()
    assert backend.cancelled == ["here"]
    assert not completion._refreshes


async def test_a_refresh_goes_on_when_its_entry_is_invalidated(clock: Clock):
    backend = ScriptedBackend(reply("old"))
    completion = await stale(backend, clock)
    backend.hold()
    await completion.generate(asking(), soon())
    await called(backend, 2)
    await completion.invalidate(persona="", model="model-a", scope=None)
    assert len(completion._refreshes) == 1  # and is not lost
    await completion.close()


# Callers of one process


async def test_fifty_at_once_make_one_call():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = generating(completion, *[asking()] * 50)
    await called(backend)
    backend.release()
    answers = await asyncio.gather(*asked)
    assert len(backend.calls) == 1
    assert Counter(answer.cache for answer in answers) == {MISS: 1, COALESCED: 49}
    assert {answer.attempts for answer in answers} == {1}
    assert completion.cache.statistics.coalesced == 49


async def test_different_requests_do_not_wait_for_each_other():
    backend = ScriptedBackend()
    backend.hold()
    asked = generating(completion_of(backend), asking("a"), asking("b"))
    await called(backend, 2)
    backend.release()
    assert [answer.cache for answer in await asyncio.gather(*asked)] == [MISS, MISS]


async def test_without_a_cache_concurrent_equal_requests_still_make_one_call():
    backend = ScriptedBackend()
    backend.hold()
    asked = generating(completion_of(backend, max_entries=0), *[asking()] * 3)
    await called(backend)
    backend.release()
    assert Counter(answer.cache for answer in await asyncio.gather(*asked)) == {OFF: 1, COALESCED: 2}
    assert len(backend.calls) == 1


async def test_streams_and_unary_callers_share_a_call():
    backend = ScriptedBackend()
    dictated = backend.dictate("here")
    completion = completion_of(backend)
    first = Streaming(completion, asking())
    await called(backend)
    dictated.say("One ")
    await first.has("One ")
    late, (unary,) = Streaming(completion, asking()), generating(completion, asking())
    await late.has("One ")
    dictated.say("two", reply("One two"))
    assert ((await first.task).cache, (await late.task).cache, (await unary).cache) == (MISS, COALESCED, COALESCED)
    assert first.text == late.text == (await unary).reply.text == "One two"
    assert len(backend.calls) == 1


async def test_a_stream_that_joins_a_unary_call_has_its_whole_text():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    (unary,) = generating(completion, asking())
    await called(backend)
    stream = Streaming(completion, asking())
    await until(lambda: completion.cache.statistics.coalesced == 1)
    backend.release()
    assert (await stream.task).cache is COALESCED
    assert stream.text == (await unary).reply.text == "Hello!"


@pytest.mark.parametrize("leaver", [0, 1])
async def test_one_that_leaves_does_not_hurt_the_others(leaver):
    backend = ScriptedBackend()
    backend.hold()
    asked = generating(completion_of(backend), *[asking()] * 3)
    await called(backend)
    asked.pop(leaver).cancel()
    await asyncio.sleep(0)
    backend.release()
    assert [answer.reply for answer in await asyncio.gather(*asked)] == [reply()] * 2
    assert (len(backend.calls), backend.cancelled) == (1, [])


async def test_when_the_last_leaves_the_model_call_is_cancelled():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = [*generating(completion, asking(), asking()), Streaming(completion, asking()).task]
    await called(backend)
    for task in asked:
        task.cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    await until(lambda: backend.cancelled == ["here"])


async def test_a_stream_that_is_closed_cancels_the_model_call():
    backend = ScriptedBackend()
    backend.dictate("here").say("One ")
    async with aclosing(completion_of(backend).stream(asking(), soon())) as items:
        assert await anext(items) == "One "
    await until(lambda: backend.cancelled == ["here"])


async def test_nobody_joins_a_call_that_is_being_cancelled():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    (first,) = generating(completion, asking())
    await called(backend)
    first.cancel()
    (second,) = generating(completion, asking())
    await called(backend, 2)
    backend.release()
    assert (await second).cache is MISS
    assert first.cancelled()


async def test_each_waits_no_longer_than_its_own_deadline():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    (patient,) = generating(completion, asking())
    await called(backend)
    with pytest.raises(DeadlineExceeded):
        await completion.generate(asking(), Deadline.after(0.02))
    with pytest.raises(DeadlineExceeded):
        await Streaming(completion, asking(), Deadline.after(0.02)).task
    assert (len(backend.calls), backend.cancelled) == (1, [])
    backend.release()
    assert (await patient).reply == reply()


async def test_a_more_patient_follower_gives_the_call_more_time():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    short = Deadline.after(0.1)
    hasty = asyncio.create_task(completion.generate(asking(), short))
    await called(backend)
    (patient,) = generating(completion, asking())
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert short.remaining_seconds() == 0  # the caller's own has not moved
    await called(backend, 2)  # the first attempt had the hasty one's time alone
    backend.release()
    assert (await patient).attempts == 2
    assert backend.calls[0].timeout_seconds <= 0.1 < 5 < backend.calls[1].timeout_seconds


async def test_the_followers_own_deadline_does_not_shorten_the_call():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    (patient,) = generating(completion, asking())
    await called(backend)
    with pytest.raises(DeadlineExceeded):
        await completion.generate(asking(), Deadline.after(0))
    backend.release()
    assert (await patient).attempts == 1


async def test_no_model_is_called_when_the_deadline_has_passed():
    backend = ScriptedBackend()
    with pytest.raises(DeadlineExceeded):
        await completion_of(backend).generate(asking(), Deadline.after(0))
    assert backend.calls == []


@pytest.mark.parametrize("error", [ModelBlocked(), KeyError("defect")])
async def test_a_failure_or_a_defect_reaches_everyone_who_waits(error):
    backend = ScriptedBackend(error)
    backend.hold()
    completion = completion_of(backend)
    asked = generating(completion, *[asking()] * 3)
    await called(backend)
    backend.release()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {type(error)}
    assert (await completion.generate(asking(), soon())).cache is MISS


async def test_who_waits_for_a_cut_reply_has_it_too():
    backend = ScriptedBackend(CUT)
    backend.hold()
    asked = generating(completion_of(backend), asking(), asking())
    await called(backend)
    backend.release()
    assert {answer.reply for answer in await asyncio.gather(*asked)} == {CUT}
    assert len(backend.calls) == 1


async def test_a_call_under_way_answers_nobody_who_asks_after_an_invalidation():
    backend = ScriptedBackend()
    dictated = [backend.dictate("here"), backend.dictate("here")]
    completion = completion_of(backend)
    (before,) = generating(completion, asking())
    await called(backend)
    assert not await completion.invalidate(persona="", model="model-a", scope=None)  # no store to share it
    (after,) = generating(completion, asking())
    await called(backend, 2)
    dictated[0].say(reply("before"))
    assert (await before).reply.text == "before"
    (joined,) = generating(completion, asking())
    await until(lambda: completion.cache.statistics.coalesced == 1)
    dictated[1].say(reply("after"))
    assert (await after).reply.text == (await joined).reply.text == "after"
    assert len(backend.calls) == 2


async def test_a_reply_that_was_begun_before_an_invalidation_is_not_kept(replica: NewReplica, clock: Clock):
    backend = ScriptedBackend(reply("before"), reply("after"))
    backend.hold()
    completion = completion_of(backend, await replica(), unix_now=clock)
    (before,) = generating(completion, asking())
    await called(backend)
    clock.at += 1
    await completion.invalidate(persona="", model="model-a", scope=None)
    clock.at += 1
    backend.release()
    await before
    after = await completion.generate(asking(), soon())
    assert (after.reply.text, after.cache) == ("after", MISS)


# Batches


async def test_a_batch_keeps_the_order_and_fails_alone():
    backend = ScriptedBackend(reply("first"), ModelBlocked(), reply("third"))
    requests = [asking(text) for text in ("a", "b", "c")]
    first, second, third = await completion_of(backend).generate_batch(requests, max_concurrency=1, deadline=soon())
    assert isinstance(second, ModelBlocked)
    assert [(answer.reply.text, answer.cache) for answer in (first, third)] == [("first", MISS), ("third", MISS)]


async def test_a_batch_makes_only_so_many_calls_at_a_time():
    backend = ScriptedBackend()
    backend.hold()
    requests = [asking(str(number)) for number in range(10)]
    batch = asyncio.create_task(completion_of(backend).generate_batch(requests, max_concurrency=3, deadline=soon()))
    await called(backend, 3)
    backend.release()
    assert len(await batch) == 10
    assert backend.most_at_once == 3


async def test_equal_requests_of_a_batch_share_a_call():
    backend = ScriptedBackend()
    outcomes = await completion_of(backend).generate_batch([asking()] * 10, max_concurrency=4, deadline=soon())
    assert {outcome.reply for outcome in outcomes if isinstance(outcome, Completed)} == {reply()}
    assert len(backend.calls) == 1


async def test_what_a_batch_does_not_reach_in_time_fails_alone():
    backend = ScriptedBackend()
    backend.hold()
    requests = [asking(str(number)) for number in range(4)]
    outcomes = await completion_of(backend).generate_batch(requests, max_concurrency=2, deadline=Deadline.after(0.05))
    assert {type(outcome) for outcome in outcomes} == {DeadlineExceeded}
    assert len(backend.calls) == 2


async def test_cancelling_a_batch_cancels_its_calls():
    backend = ScriptedBackend()
    backend.hold()
    requests = [asking(str(number)) for number in range(4)]
    batch = asyncio.create_task(completion_of(backend).generate_batch(requests, max_concurrency=2, deadline=soon()))
    await called(backend, 2)
    batch.cancel()
    await asyncio.wait((batch,))
    await until(lambda: backend.cancelled == ["here", "here"])
    assert len(backend.calls) == 2


# Replicas


class Replicas:
    """Two, over one Redis; the first one leads."""

    def __init__(self, leading: Completion, following: Completion) -> None:
        self.leading, self.following = leading, following
        self.backend: ScriptedBackend = leading.calls.means.backend
        self.other_backend: ScriptedBackend = following.calls.means.backend

    async def led(self) -> None:
        await called(self.backend)

    async def followed(self, count: int = 1) -> None:
        """The second replica has asked, and waits for the first."""
        polled = self._polls()
        await until(lambda: self._polls() >= polled + 3)
        assert self.other_backend.calls == []

    def _polls(self) -> int:
        return self.following.cache._store.polls  # type: ignore[attr-defined]


@pytest.fixture
async def replicas(replica: NewReplica) -> Replicas:
    caches = await replica(), await replica()
    send = caches[1]._store.send
    caches[1]._store.polls = 0

    def counted(*command):
        caches[1]._store.polls += 1
        return send(*command)

    caches[1]._store.send = counted
    return Replicas(*(completion_of(ScriptedBackend(), cache) for cache in caches))


async def test_what_one_replica_has_made_another_has(replicas: Replicas):
    await replicas.leading.generate(asking(), soon())
    answer = await replicas.following.generate(asking(), soon())
    assert (answer.reply, answer.cache, answer.attempts) == (reply(), HIT, 0)
    assert replicas.other_backend.calls == []


async def test_bypass_asks_the_model_though_another_replica_has_a_reply(replicas: Replicas):
    await replicas.leading.generate(asking(), soon())
    assert (await replicas.following.generate(asking(cache=BYPASS), soon())).cache is OFF
    assert len(replicas.other_backend.calls) == 1


async def test_no_store_is_answered_by_what_another_replica_has_stored(replicas: Replicas):
    await replicas.leading.generate(asking(), soon())
    assert (await replicas.following.generate(asking(cache=NO_STORE), soon())).cache is HIT
    assert replicas.other_backend.calls == []


async def test_nobody_follows_a_call_that_is_not_to_be_shared(replicas: Replicas):
    dictated = replicas.backend.dictate("here")
    private = Streaming(replicas.leading, asking(cache=NO_STORE))
    dictated.say("Private ")
    await private.has("Private ")
    other = Streaming(replicas.following, asking())
    assert (await other.task).cache is MISS
    assert other.text == "Hello!"
    dictated.say(reply("Private "))
    await private.task


async def test_those_who_wait_for_a_shared_hit_have_a_hit(replicas: Replicas):
    await replicas.leading.generate(asking(), soon())
    answers = await asyncio.gather(*generating(replicas.following, *[asking()] * 5))
    assert {answer.cache for answer in answers} == {HIT}


async def test_fifty_at_once_ask_redis_once(replicas: Replicas, redis):
    await redis.config_resetstat()
    await asyncio.gather(*generating(replicas.leading, *[asking()] * 50))
    calls = {name: entry["calls"] for name, entry in (await redis.info("commandstats")).items()}
    assert calls["cmdstat_eval"] == 2  # the lease, and how it ended
    assert len(replicas.backend.calls) == 1


async def test_a_replica_follows_the_call_of_another(replicas: Replicas):
    replicas.backend.hold()
    (led,) = generating(replicas.leading, asking())
    await replicas.led()
    followers = generating(replicas.following, asking(), asking())
    await replicas.followed()
    replicas.backend.release()
    answers = await asyncio.gather(*followers)
    assert {(answer.reply, answer.cache, answer.attempts) for answer in answers} == {(reply(), COALESCED, 0)}
    assert (await led).cache is MISS
    assert replicas.other_backend.calls == []


async def test_a_stream_follows_the_stream_of_another_replica(replicas: Replicas):
    dictated = replicas.backend.dictate("here")
    led = Streaming(replicas.leading, asking())
    dictated.say("One ")
    await led.has("One ")
    followed = Streaming(replicas.following, asking())
    await followed.has("One ")  # replayed
    dictated.say("two ")
    await followed.has("One two ")  # and while it is made
    assert followed.completed is None
    dictated.say("three", reply("One two three"))
    assert (await followed.task).cache is COALESCED
    assert followed.text == "One two three"
    assert (await led.task).cache is MISS
    assert replicas.other_backend.calls == []


async def leave(task: asyncio.Task) -> None:
    task.cancel()
    await asyncio.wait((task,))


async def test_a_replica_takes_over_where_the_leader_leaves(replicas: Replicas):
    replicas.backend.hold()
    (led,) = generating(replicas.leading, asking())
    await replicas.led()
    (follower,) = generating(replicas.following, asking())
    await replicas.followed()
    await leave(led)
    answer = await follower
    assert (answer.reply, answer.cache, answer.attempts) == (reply(), MISS, 1)
    assert replicas.following.cache.statistics.taken_over == 1


async def test_a_stream_takes_over_before_its_first_text(replicas: Replicas):
    replicas.backend.hold()
    led = Streaming(replicas.leading, asking())
    await replicas.led()
    follower = Streaming(replicas.following, asking())
    await replicas.followed()
    await leave(led.task)
    assert (await follower.task).cache is MISS
    assert follower.text == "Hello!"


async def test_a_stream_that_has_begun_does_not_go_on_in_other_words(replicas: Replicas):
    dictated = replicas.backend.dictate("here")
    led = Streaming(replicas.leading, asking())
    dictated.say("One ")
    follower = Streaming(replicas.following, asking())
    await follower.has("One ")
    await leave(led.task)
    with pytest.raises(ModelInterrupted):
        await follower.task
    assert (follower.text, replicas.other_backend.calls) == ("One ", [])


async def test_the_failure_of_the_leader_reaches_those_who_follow(replicas: Replicas):
    dictated = replicas.backend.dictate("here")
    (led,) = generating(replicas.leading, asking())
    await replicas.led()
    (follower,) = generating(replicas.following, asking())
    await replicas.followed()
    dictated.say(ModelBlocked())
    for task in (led, follower):
        with pytest.raises(IonError) as raised:
            await task
        assert raised.value.reason == ModelBlocked().reason
    assert replicas.other_backend.calls == []


async def test_a_defect_of_the_leader_does_not_reach_those_who_follow(replicas: Replicas):
    dictated = replicas.backend.dictate("here")
    (led,) = generating(replicas.leading, asking())
    await replicas.led()
    (follower,) = generating(replicas.following, asking())
    await replicas.followed()
    dictated.say(KeyError("defect"))
    with pytest.raises(KeyError):
        await led
    assert (await follower).cache is MISS


async def test_the_haste_of_the_leader_does_not_reach_those_who_follow(replicas: Replicas):
    replicas.backend.hold()
    hasty = asyncio.create_task(replicas.leading.generate(asking(), Deadline.after(1.0)))
    await replicas.led()
    (follower,) = generating(replicas.following, asking())
    await replicas.followed()
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert (await follower).cache is MISS


async def test_that_the_leader_is_busy_does_not_reach_those_who_follow(replicas: Replicas):
    replicas.leading.admission = Admission(1, 1)
    replicas.backend.hold()
    (busy,) = generating(replicas.leading, asking("something else"))
    await replicas.led()
    (led,) = generating(replicas.leading, asking())  # in the queue
    await until(lambda: replicas.leading.admission.queued == 1)
    (follower,) = generating(replicas.following, asking())
    await replicas.followed()
    (waiter,) = replicas.leading.admission._queue
    waiter.turn.set_exception(Overloaded(retry_after_seconds=1.0))
    with pytest.raises(Overloaded):
        await led
    assert (await follower).cache is MISS
    await leave(busy)


async def test_a_cut_reply_goes_to_those_who_follow_and_to_nobody_later(replicas: Replicas):
    dictated = replicas.backend.dictate("here")
    (led,) = generating(replicas.leading, asking())
    await replicas.led()
    (follower,) = generating(replicas.following, asking())
    await replicas.followed()
    dictated.say(CUT)
    assert (await led).reply == (await follower).reply == CUT
    assert replicas.other_backend.calls == []
    assert (await replicas.following.generate(asking(), soon())).cache is MISS


async def test_a_follower_waits_no_longer_than_its_deadline(replicas: Replicas):
    replicas.backend.hold()
    led = [*generating(replicas.leading, asking()), Streaming(replicas.leading, asking("stream")).task]
    await called(replicas.backend, 2)
    with pytest.raises(DeadlineExceeded):
        await replicas.following.generate(asking(), Deadline.after(0.05))
    with pytest.raises(DeadlineExceeded):
        await Streaming(replicas.following, asking("stream"), Deadline.after(0.05)).task
    assert replicas.other_backend.calls == []
    replicas.backend.release()
    await asyncio.gather(*led)


# Load, tokens and the account


async def test_what_cannot_wait_for_its_turn_is_refused_but_hits_are_not():
    backend = ScriptedBackend()
    completion = completion_of(backend, admission=Admission(1, 0))
    await completion.generate(asking("known"), soon())
    backend.hold()
    (running,) = generating(completion, asking())
    await called(backend, 2)
    with pytest.raises(Overloaded):
        await completion.generate(asking("other"), soon())
    with pytest.raises(Overloaded):
        await Streaming(completion, asking("other")).task
    assert (await completion.generate(asking("known"), soon())).cache is HIT
    assert completion.admission.shed == 2
    backend.release()
    assert (await running).cache is MISS
    assert completion.admission.running == 0


async def test_a_stale_reply_answers_an_overloaded_gateway(clock: Clock):
    backend = ScriptedBackend(reply("old"))
    completion = await stale(backend, clock, admission=Admission(1, 0))
    backend.hold()
    (running,) = generating(completion, asking("other"))
    await called(backend, 2)
    assert (await completion.generate(asking(), soon())).cache is STALE
    await until(lambda: completion.admission.shed == 1)
    await leave(running)


async def test_the_time_in_the_queue_and_to_the_first_token_is_told():
    backend = ScriptedBackend()
    ticks = Clock()
    completion = completion_of(backend, admission=Admission(1, 1, now=ticks))
    backend.hold()
    first, second = generating(completion, asking("a"), asking("b"))
    await called(backend)
    await until(lambda: completion.admission.queued == 1)
    ticks.at += 7
    backend.release()
    assert ((await first).queued_seconds, (await second).queued_seconds) == (0.0, 7.0)
    assert (await first).first_token_seconds is None
    assert (await Streaming(completion, asking("c")).task).first_token_seconds > 0


async def test_a_place_is_given_back_by_a_call_that_is_cancelled():
    backend = ScriptedBackend()
    completion = completion_of(backend, admission=Admission(1, 0))
    backend.hold()
    (asked,) = generating(completion, asking())
    await called(backend)
    await leave(asked)
    await until(lambda: completion.admission.running == 0)


@pytest.mark.parametrize("limits", [{"gateway": 60}, {"request": 60}, {"gateway": 60, "request": 1000}])
async def test_history_is_trimmed_to_the_limit_of_input_tokens(limits):
    backend = ScriptedBackend()  # counts 42 tokens whatever is asked
    completion = completion_of(backend, max_input_tokens=limits.get("gateway", 0))
    counts = iter([500, 42, 42, 42])

    async def count(model, prompt, *, location, timeout_seconds):
        return next(counts)

    backend.count_tokens = count
    asked = replace(chatting("old " * 300, "older " * 300, "now"), max_input_tokens=limits.get("request", 0))
    made = await completion.generate(asked, soon())
    assert made.trimmed_turns == 2
    (call,) = backend.calls
    assert call.request.prompt == Prompt("You are Lua.", (Turn(Role.USER, "now"),))


async def test_a_prompt_that_cannot_be_trimmed_to_fit_is_refused():
    backend = ScriptedBackend()
    completion = completion_of(backend, max_input_tokens=10)  # 42 are counted
    with pytest.raises(PromptTooLarge):
        await completion.generate(asking("much " * 100), soon())
    assert all(isinstance(call.request, tuple) for call in backend.calls)  # counts


async def test_a_prompt_that_fits_is_not_counted():
    backend = ScriptedBackend()
    made = await completion_of(backend, max_input_tokens=1000).generate(asking(), soon())
    assert (made.trimmed_turns, len(backend.calls)) == (0, 1)


async def test_what_a_model_does_not_take_does_not_reach_it(caplog: pytest.LogCaptureFixture):
    backend = ScriptedBackend()
    completion = completion_of(backend)
    asked = replace(asking(), model="gemini-4-argon", parameters=Parameters(temperature=0.5, stop_sequences=("\n",)))
    with caplog.at_level(logging.WARNING):
        await completion.generate(asked, soon())
    assert backend.calls[0].request.parameters == Parameters(stop_sequences=("\n",))
    assert len(caplog.records) == 1


async def test_counting_tokens_ends_with_the_deadline():
    backend = ScriptedBackend()
    prompt = Prompt("", (Turn(Role.USER, "Hi"),))
    completion = completion_of(backend)
    assert await completion.count_tokens("m", prompt, soon()) == 42
    backend.hold()
    with pytest.raises(DeadlineExceeded):
        await completion.count_tokens("n", prompt, Deadline.after(0.02))


async def test_the_account_is_by_persona_and_model_and_knows_what_was_lost():
    backend = ScriptedBackend()
    completion = completion_of(backend)
    for persona in ("Lua", "Lua", "Sol"):
        await completion.generate(asking(persona, persona=persona), soon())
    backend.hold()
    (lost,) = generating(completion, asking("never answered", persona="Sol"))
    await called(backend, 3)
    await leave(lost)
    await until(lambda: backend.cancelled == ["here"])
    entries = {entry.persona: entry for entry in completion.calls.means.ledger.entries()}
    assert {entry.model for entry in entries.values()} == {"model-a"}
    assert (entries["Lua"].replies, entries["Lua"].usage) == (1, reply().usage)  # the second was a hit
    assert (entries["Sol"].replies, entries["Sol"].usage) == (1, reply().usage)
    assert entries["Sol"].lost_usage.input_tokens > 0


async def test_retries_and_hedges_are_told():
    backend = ScriptedBackend(ModelQuota(), locations=("a", "b"))
    completion = completion_of(backend)
    assert completion.default_model == "model-a"
    assert (await completion.generate(asking(), soon())).attempts == 2
    means = completion.calls.means
    means.hedge_budget = RatioBudget(floor=1)
    for _ in range(50):
        means.latencies.add("model-a", first_token_seconds=None, reply_seconds=0.001)
    backend.hold("a")
    made = await completion.generate(asking("slow"), soon())
    assert (made.attempts, made.hedges, made.lost_usage) == (2, 1, Usage(11, 0))


# What made the reply, for links


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded_spans() as spans:
        yield spans


def attempts_of(spans: InMemorySpanExporter) -> list[str]:
    """The ids of the spans of attempts that have ended."""
    return [
        f"{span.context.span_id:016x}"
        for span in spans.get_finished_spans()
        if telemetry.GEN_AI_OPERATION in span.attributes
    ]


def origin(completed: Completed) -> tuple[CacheTier, str]:
    return completed.tier, completed.traceparent[36:52]


async def test_a_reply_tells_which_call_made_it_wherever_it_is_found(replicas: Replicas, spans):
    made = await replicas.leading.generate(asking(), soon())
    (attempt,) = attempts_of(spans)
    assert origin(made) == (CacheTier.NONE, attempt)
    assert origin(await replicas.leading.generate(asking(), soon())) == (CacheTier.NEAR, attempt)
    assert origin(await replicas.following.generate(asking(), soon())) == (CacheTier.SHARED, attempt)
    assert origin(await replicas.following.generate(asking(), soon())) == (CacheTier.NEAR, attempt)
    assert origin(await replicas.leading.generate(asking(cache=NO_STORE), soon())) == (CacheTier.NEAR, attempt)


async def test_those_who_follow_another_replica_are_told_which_call_made_their_reply(replicas: Replicas, spans):
    replicas.backend.hold()
    (led,) = generating(replicas.leading, asking())
    await replicas.led()
    followers = generating(replicas.following, asking(), asking())
    await replicas.followed()
    replicas.backend.release()
    answers = await asyncio.gather(led, *followers)
    (attempt,) = attempts_of(spans)
    assert sorted(map(origin, answers)) == [
        (CacheTier.FLIGHT, attempt),
        (CacheTier.NONE, attempt),
        (CacheTier.SHARED, attempt),
    ]


async def test_a_reply_whose_call_was_not_sampled_leads_nowhere(replicas: Replicas):
    await replicas.leading.generate(asking(), soon())
    assert (await replicas.following.generate(asking(), soon())).traceparent == ""


async def test_a_stale_reply_is_told_with_the_call_that_made_it(clock: Clock, spans):
    completion = await stale(ScriptedBackend(), clock)
    (attempt,) = attempts_of(spans)
    assert origin(await completion.generate(asking(), soon())) == (CacheTier.NEAR, attempt)
    await until(lambda: completion.cache.statistics.stored == 2)
    assert origin(await completion.generate(asking(), soon())) == (CacheTier.NEAR, attempts_of(spans)[1])


async def test_redis_is_asked_within_the_trace_of_the_first_caller(replicas: Replicas, spans):
    with tracing.span(telemetry.RPC_SERVER, "first") as first:
        await replicas.leading.generate(asking(), soon())
    asked = [span for span in spans.get_finished_spans() if telemetry.DB_SYSTEM in span.attributes]
    assert [span.name for span in asked] == ["EVAL enter", "EVAL settle"]
    assert {f"{span.parent.span_id:016x}" for span in asked} == {first.call.span_id}


async def test_a_reply_made_without_a_lease_is_set_within_the_trace(replicas: Replicas, spans):
    with tracing.span(telemetry.RPC_SERVER, "first"):
        await replicas.leading.generate(asking(cache=BYPASS), soon())
    asked = [span.name for span in spans.get_finished_spans() if telemetry.DB_SYSTEM in span.attributes]
    assert asked == ["SET reply"]
