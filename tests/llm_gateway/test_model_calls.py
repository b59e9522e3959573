"""What the process's calls to the model's service share, and counts of tokens."""

from __future__ import annotations

import asyncio

import pytest

from chassis.errors import DeadlineExceeded
from llm_gateway.budgets import RatioBudget
from llm_gateway.generation import ModelBlocked, ModelQuota, ModelUnavailable, Prompt, Role, Turn
from llm_gateway.locations import Locations
from llm_gateway.means import Means
from llm_gateway.model_calls import MAX_COUNTS, ModelCalls
from tests.llm_gateway.scripted_backend import (
    ScriptedBackend,
    asking,
    nothing_left_behind,  # noqa: F401
    reply,
    soon,
    until,
)

PROMPT = Prompt("", (Turn(Role.USER, "Hi"),))


class Silent:
    wants_text = False

    def publish(self, text: str) -> None:
        raise AssertionError("nobody reads")


def calls_of(backend: ScriptedBackend, **options) -> ModelCalls:
    return ModelCalls(Means(backend, Locations(backend.locations, **options), draw=lambda: 0.0))


async def test_each_request_pays_into_both_budgets():
    calls = calls_of(ScriptedBackend())
    calls.means.retry_budget = RatioBudget(share=0.5, floor=0)
    calls.means.hedge_budget = RatioBudget(share=1.0, floor=0)
    for _ in range(2):
        assert (await calls.make(asking(), soon(), Silent())).reply == reply()
    assert [calls.means.retry_budget.withdraw() for _ in range(2)] == [True, False]
    assert [calls.means.hedge_budget.withdraw() for _ in range(3)] == [True, True, False]


async def test_an_outage_does_not_multiply_load():
    """Those under way as it begins are tried once more, elsewhere; after that a tenth is."""
    backend = ScriptedBackend(*[ModelUnavailable()] * 900, locations=("a", "b"))
    calls = calls_of(backend)
    calls.means.retry_budget = RatioBudget(share=0.1, floor=0)
    asked = []
    for _ in range(3):
        made = (calls.make(asking(str(number)), soon(), Silent()) for number in range(100))
        failures = await asyncio.gather(*made, return_exceptions=True)
        assert {type(failure) for failure in failures} == {ModelUnavailable}
        asked.append(len(backend.calls))
        backend.calls.clear()
    assert asked[0] <= 210
    assert sum(asked[1:]) <= 230


async def test_no_call_is_under_way_after_close():
    backend, at = ScriptedBackend(locations=("a", "b")), 1000.0
    calls = calls_of(backend, now=lambda: at)
    for _ in range(10):
        calls.means.locations.start("a").failed()
    at += 10
    backend.hold("a")
    assert (await calls.make(asking(), soon(), Silent())).reply.location == "b"
    (probe,) = calls.means.probes
    await calls.close()
    assert probe.cancelled()
    assert backend.cancelled == ["a"]
    assert backend.is_closed
    assert calls.means.locations.running("a") == 0


async def test_counting_tokens_retries_elsewhere_at_once():
    backend = ScriptedBackend(ModelQuota(retry_after_seconds=3600), locations=("a", "b"))
    assert await calls_of(backend).count_tokens("model-b", PROMPT, 10.0) == 42
    assert backend.asked == ["a", "b"]
    assert backend.calls[0].request == ("model-b", PROMPT)


async def test_counting_tokens_gives_up_with_the_last_error():
    backend = ScriptedBackend(*[ModelUnavailable()] * (MAX_COUNTS + 1))
    with pytest.raises(ModelUnavailable):
        await calls_of(backend).count_tokens("m", PROMPT, 10.0)
    assert len(backend.calls) == MAX_COUNTS == 3


@pytest.mark.parametrize(("error", "floor"), [(ModelBlocked(), 10), (ModelUnavailable(), 0)])
async def test_counting_tokens_is_not_retried_in_vain_or_beyond_the_budget(error, floor):
    backend = ScriptedBackend(error)
    calls = calls_of(backend)
    calls.means.retry_budget = RatioBudget(share=0.0, floor=floor)
    with pytest.raises(type(error)):
        await calls.count_tokens("m", PROMPT, 10.0)
    assert len(backend.calls) == 1


async def test_counting_tokens_is_not_retried_before_the_time_that_was_asked_for():
    backend = ScriptedBackend(ModelQuota(retry_after_seconds=3600))
    with pytest.raises(ModelQuota):
        await calls_of(backend).count_tokens("m", PROMPT, 10.0)
    assert len(backend.calls) == 1


async def test_counting_tokens_ends_in_time():
    backend = ScriptedBackend(locations=("a", "b"))
    backend.hold()
    with pytest.raises(DeadlineExceeded):
        await calls_of(backend).count_tokens("m", PROMPT, 0.02)
    assert len(backend.calls) == 1


async def test_counting_tokens_stops_when_it_is_cancelled():
    backend = ScriptedBackend()
    backend.hold()
    counting = asyncio.create_task(calls_of(backend).count_tokens("m", PROMPT, 10.0))
    await until(lambda: len(backend.calls) == 1)
    counting.cancel()
    await asyncio.wait((counting,))
    assert (counting.cancelled(), backend.cancelled) == (True, ["here"])
