"""With a second opinion switched on, the model reads what the reader is not sure of, and nothing waits for it long."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.fake_vertex import FakeVertex
from tests.stack.harness import SHAPES, Chain, vertex_env

SECRET = "hmm well, swordfish"
OPINION = json.dumps({"tone": "playful", "intent": "request"})


def is_opinion(request) -> bool:
    return bool(request.generation_config.response_mime_type)


@pytest_asyncio.fixture(loop_scope="session")
async def model() -> AsyncIterator[FakeVertex]:
    async with FakeVertex() as model:
        model.answer(lambda request: OPINION if is_opinion(request) else "the reply")
        yield model


@pytest_asyncio.fixture(loop_scope="session", params=SHAPES)
async def asking(request: pytest.FixtureRequest, model: FakeVertex) -> AsyncIterator[Chain]:
    env = vertex_env(
        {"us-central1": model.endpoint},
        ION_SECOND_OPINION="1",
        ION_SECOND_OPINION_BELOW="1",
        ION_SECOND_OPINION_TIMEOUT_SECONDS="2",
        ION_LOG_LEVEL="debug",
    )
    async with SHAPES[request.param](env) as chain:
        yield chain


async def test_the_model_reads_and_answers_and_no_log_has_the_message(asking, model):
    answer = (await asking.chat(SECRET)).json()
    assert answer["content"] == "the reply"
    assert answer["resonance_key"].startswith("playful-")
    assert answer["resonance_key"].endswith("-request")
    assert answer["metadata"]["read_by"] == "model"
    opinion, reply = (call.request for call in model.calls)
    assert is_opinion(opinion)
    assert not is_opinion(reply)
    routed = (await asking.http.post("/route", json={"message": SECRET})).json()
    assert routed["analysis"]["read_by"] == "model"
    assert len(model.calls) == 2
    assert not any("swordfish" in line for process in asking.processes.values() for line in process.lines)


async def test_while_the_model_is_away_messages_are_routed_all_the_same(asking, model):
    model.hang()
    started = time.monotonic()
    routed = await asking.http.post("/route", json={"message": SECRET}, headers={"X-Request-Timeout": "2"})
    assert time.monotonic() - started < 1.5  # a quarter of the two seconds is 0.5
    assert routed.json()["analysis"]["read_by"] == "reader"
    apology = await asking.http.post("/chat", json={"message": SECRET}, headers={"X-Request-Timeout": "2"})
    assert apology.json()["metadata"]["error"]["reason"] == "DEADLINE_EXCEEDED"
