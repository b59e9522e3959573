"""What is counted anyway, as metrics: every count under its own name and attributes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from chassis import telemetry
from llm_gateway import observers
from llm_gateway.admission import Admission
from llm_gateway.attempts import Kind
from llm_gateway.cache import ResponseCache
from llm_gateway.catalogue import Catalogue
from llm_gateway.completion import Completion
from llm_gateway.generation import Overloaded, Usage
from llm_gateway.labels import MAX_PERSONAS
from llm_gateway.locations import Locations
from llm_gateway.means import Means
from llm_gateway.model_calls import ModelCalls
from llm_gateway.redis_store import NoStore
from llm_gateway.spending import Ledger
from tests.llm_gateway.conftest import NewReplica
from tests.llm_gateway.scripted_backend import ScriptedBackend, asking, soon, until
from tests.observed import Measured, measured


@pytest.fixture
def seen() -> Iterator[Measured]:
    with measured() as seen:
        yield seen


def cost(model: str, usage: Usage, _lost: Usage) -> float | None:
    return None if model == "free" else usage.output_tokens / 4


def observed(cache: ResponseCache | None = None, *, admission: Admission | None = None) -> Completion:
    backend = ScriptedBackend(locations=("one", "two"))
    means = Means(backend, Locations(backend.locations), ledger=Ledger(cost))
    completion = Completion(
        ModelCalls(means),
        cache or ResponseCache(NoStore(), ttl_seconds=60, max_entries=100),
        admission or Admission(10, 10),
        catalogue=Catalogue.load(),
    )
    observers.observe(completion)
    return completion


def table(seen: Measured, metric: telemetry.Metric) -> dict[tuple[str, ...], float]:
    """The values, by those of the attributes in the order of their declaration."""
    return {tuple(point.attributes[key] for key in metric.attributes): point.value for point in seen.points(metric)}


def test_lookups_are_told_by_where_the_reply_was_found(seen):
    counted = observed().cache.statistics
    counted.near_fresh, counted.near_stale, counted.shared_fresh, counted.shared_stale = 9, 1, 180, 20
    counted.coalesced, counted.followed, counted.misses = 3, 4, 5
    assert table(seen, telemetry.CACHE_LOOKUPS) == {
        ("near", "hit"): 9,
        ("near", "stale"): 1,
        ("flight", "coalesced"): 3,
        ("shared", "hit"): 180,
        ("shared", "stale"): 20,
        ("shared", "coalesced"): 4,
        ("none", "miss"): 5,
    }


async def test_stale_replies_are_counted_where_they_were_found(seen, replica: NewReplica, clock):
    here, there = await replica(stale_seconds=100), await replica(stale_seconds=100)
    await observed(here).generate(asking(), soon())
    clock.at += 61
    completion = observed(there)
    for _ in range(2):  # from Redis, then from memory
        await completion.generate(asking(), soon())
        await completion.close()
    assert (there.statistics.shared_stale, there.statistics.near_stale) == (1, 1)


async def test_errors_of_the_cache_are_told_by_kind(seen, replica: NewReplica):
    cache = await replica()
    observed(cache)
    cache._store.late, cache._store.refusals = 1, 2
    cache.statistics.foreign_values, cache.statistics.fenced_off = 3, 4
    told = {"late": 1, "refused": 2, "foreign": 3, "fenced_off": 4}
    assert table(seen, telemetry.CACHE_ERRORS) == {(kind,): number for kind, number in told.items()}


async def test_redis_is_told_to_be_there_or_not(seen, replica: NewReplica):
    cache = await replica()
    observed(cache)
    assert table(seen, telemetry.REDIS_CONNECTED) == {("cache",): 1}
    cache._store.connected = False
    assert table(seen, telemetry.REDIS_CONNECTED) == {("cache",): 0}


async def test_a_gateway_that_is_closed_does_not_say_that_redis_is_away(seen, replica: NewReplica):
    cache = await replica()
    observed(cache)
    await cache.close()
    assert table(seen, telemetry.REDIS_CONNECTED) == {}


def test_nothing_is_told_of_a_redis_that_is_not_configured(seen, caplog):
    observed()
    assert table(seen, telemetry.REDIS_CONNECTED) == {}
    assert caplog.records == []


async def test_what_the_cache_keeps_is_counted(seen):
    completion = observed()
    for text in ("one", "two"):
        await completion.generate(asking(text), soon())
    completion.cache.statistics.invalidated = 7
    assert seen.value(telemetry.CACHE_STORED) == 2
    assert seen.value(telemetry.CACHE_ENTRIES) == 2
    assert seen.value(telemetry.CACHE_INVALIDATED) == 7


def test_attempts_hedges_and_retries_are_told_by_outcome(seen):
    counted = observed().calls.means.statistics
    counted.attempts.update({(Kind.FIRST, "one"): 10, (Kind.RETRY, "two"): 2, (Kind.RETRY, "one"): 1})
    counted.attempts[Kind.HEDGE, "two"] = 5
    counted.hedges_won, counted.hedges_lost, counted.hedges_denied, counted.retries_denied = 1, 3, 6, 7
    assert table(seen, telemetry.MODEL_ATTEMPTS) == {
        ("first", "one"): 10,
        ("retry", "two"): 2,
        ("retry", "one"): 1,
        ("hedge", "two"): 5,
    }
    assert table(seen, telemetry.MODEL_HEDGES) == {("won",): 1, ("lost",): 3, ("denied",): 6}
    assert table(seen, telemetry.MODEL_RETRIES) == {("made",): 3, ("denied",): 7}


def test_locations_are_told_with_their_breakers(seen):
    locations = observed().calls.means.locations
    for _ in range(10):
        locations.start("one").failed()
    locations.start("two").succeeded(0.25)
    locations.start("two")
    assert table(seen, telemetry.MODEL_RUNNING) == {("one",): 0, ("two",): 1}
    assert table(seen, telemetry.MODEL_LATENCY) == {("two",): 0.25}
    assert table(seen, telemetry.BREAKER_OPENINGS) == {("one",): 1, ("two",): 0}
    assert table(seen, telemetry.BREAKER) == {
        ("one", "closed"): 0,
        ("one", "open"): 1,
        ("one", "half_open"): 0,
        ("two", "closed"): 1,
        ("two", "open"): 0,
        ("two", "half_open"): 0,
    }


def test_hedge_delays_are_told_of_models_with_a_name(seen):
    latencies = observed().calls.means.latencies
    for model in ("model-a", "made-up"):
        for _ in range(50):
            latencies.add(model, first_token_seconds=0.25, reply_seconds=0.5)
        latencies.delays(model)
    assert table(seen, telemetry.MODEL_HEDGE_DELAY) == {("model-a", "first_token"): 0.25, ("model-a", "reply"): 0.5}


async def test_the_queue_is_told_with_who_was_turned_away(seen):
    admission = Admission(1, 1)
    observed(admission=admission)
    async with admission.admit(soon()):
        waiting = asyncio.create_task(admission.acquire(soon()))
        await until(lambda: admission.queued == 1)
        with pytest.raises(Overloaded):
            await admission.acquire(soon())
        told = (telemetry.ADMISSION_RUNNING, telemetry.ADMISSION_QUEUED, telemetry.ADMISSION_SHED)
        assert [seen.value(metric) for metric in told] == [1, 1, 1]
    await waiting
    assert [seen.value(metric) for metric in told] == [1, 0, 1]


async def test_the_time_in_the_queue_is_measured_once_a_request(seen):
    completion = observed()
    answers = [await completion.generate(asking(text), soon()) for text in ("one", "two", "two")]
    (waits,) = seen.points(telemetry.ADMISSION_WAIT)
    assert (waits.count, waits.sum) == (2, sum(answer.queued_seconds for answer in answers))


def test_usage_is_told_by_persona_and_model(seen):
    means = observed().calls.means
    means.ledger.add("Lua", "model-a", Usage(100, 10, 30, 4), Usage(1000, 200, 0, 50))
    means.ledger.add("Lua", "free", Usage(1, 1), replies=0)
    used = ("Lua", "model-a")
    assert table(seen, telemetry.MODEL_REPLIES) == {used: 1, ("Lua", "(other)"): 0}
    assert {
        kind: value for (*name, kind), value in table(seen, telemetry.MODEL_TOKENS).items() if (*name,) == used
    } == {
        "input": 100,
        "cached_input": 30,
        "output": 10,
        "thinking": 4,
        "lost_input": 1000,
        "lost_output": 250,
    }
    assert table(seen, telemetry.MODEL_COST) == {used: 2.5}


def test_what_shares_a_label_is_summed_up(seen):
    means = observed().calls.means
    for number in range(MAX_PERSONAS + 10):
        means.ledger.add(f"persona {number}", f"model {number % 2}", Usage(output_tokens=8))
    replies, costs = table(seen, telemetry.MODEL_REPLIES), table(seen, telemetry.MODEL_COST)
    assert len(replies) == len(costs) == MAX_PERSONAS + 1
    assert (replies["(other)", "(other)"], costs["(other)", "(other)"]) == (10, 20)
    assert seen.value(telemetry.MODEL_TOKENS, {telemetry.PERSONA: "(other)", telemetry.TOKEN_TYPE: "output"}) == 80
