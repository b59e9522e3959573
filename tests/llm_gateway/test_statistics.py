"""What has been counted, under the names of the contract."""

from __future__ import annotations

from chassis.deadline import Deadline
from ion.llm.v1 import llm_pb2
from llm_gateway import statistics
from llm_gateway.admission import Admission
from llm_gateway.cache import ResponseCache
from llm_gateway.catalogue import Catalogue
from llm_gateway.completion import Completion
from llm_gateway.generation import ModelUnavailable
from llm_gateway.locations import Locations
from llm_gateway.means import Means
from llm_gateway.model_calls import ModelCalls
from llm_gateway.redis_store import NoStore
from tests.llm_gateway.scripted_backend import ScriptedBackend, asking


def completion_of(backend: ScriptedBackend) -> Completion:
    calls = ModelCalls(Means(backend, Locations(backend.locations)))
    cache = ResponseCache(NoStore(), ttl_seconds=60, max_entries=100)
    return Completion(calls, cache, Admission(10, 10), catalogue=Catalogue.load())


async def test_what_was_done_is_counted():
    backend = ScriptedBackend(locations=("one", "two"))
    backend.at["one"].append(ModelUnavailable())
    completion = completion_of(backend)
    for _ in range(2):
        await completion.generate(asking(persona="Lua"), Deadline.after(5))
    counted = statistics.response(completion)
    assert (counted.cache.misses, counted.cache.near_hits, counted.cache.near_entries) == (1, 1, 1)
    assert (counted.calls.calls, counted.calls.retries, counted.calls.hedges) == (2, 1, 0)
    assert [(each.location, each.breaker) for each in counted.locations] == [
        ("one", llm_pb2.BREAKER_STATE_CLOSED),
        ("two", llm_pb2.BREAKER_STATE_CLOSED),
    ]
    assert counted.locations[1].latency_micros > 0
    assert [(each.persona, each.model, each.replies) for each in counted.usage] == [("Lua", "model-a", 1)]


async def test_an_open_breaker_is_said():
    backend = ScriptedBackend(locations=("one", "two"))
    completion = completion_of(backend)
    locations = completion.calls.means.locations
    for _ in range(20):
        locations.start("one").failed()
    (one, _) = statistics.response(completion).locations
    assert one.breaker == llm_pb2.BREAKER_STATE_OPEN


async def test_learned_delays_are_said_for_each_model():
    completion = completion_of(ScriptedBackend())
    for number in range(100):
        completion.calls.means.latencies.add("model-a", first_token_seconds=0.25, reply_seconds=0.5 + number)
    (hedges,) = statistics.response(completion).hedges
    assert hedges.model == "model-a"
    assert hedges.first_token_micros == 250_000
    assert hedges.reply_micros > 80_000_000


def test_every_count_of_the_contract_is_filled():
    """A field that is forgotten would stay 0 for ever."""
    completion = completion_of(ScriptedBackend())
    counted = completion.cache.statistics
    for number, name in enumerate(type(counted).__dataclass_fields__, 1):
        setattr(counted, name, 10**number)
    told = statistics.response(completion).cache
    names = {field.name for field in told.DESCRIPTOR.fields} - {"near_entries", "late_commands"}
    apart = {"near_fresh", "near_stale", "shared_fresh", "shared_stale"}
    hits = {"near_hits", "shared_hits", "stale_hits"}
    assert names == set(type(counted).__dataclass_fields__) - apart | hits
    assert {name: getattr(told, name) for name in names} == {name: getattr(counted, name) for name in names}
    assert told.stale_hits == counted.near_stale + counted.shared_stale
    assert told.near_hits + told.shared_hits == told.stale_hits + counted.near_fresh + counted.shared_fresh
