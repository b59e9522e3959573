"""A model that cannot answer means an apology, never an error page and never a word from below."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from tests.fake_vertex import UPSTREAM_TEXT

KEY = "error-fallback-statement"


def assert_apology(response, reason, *, retryable):
    answer = response.json()
    assert response.status_code == 200
    assert (answer["persona_used"], answer["confidence"], answer["resonance_key"]) == ("Nana", 0.0, KEY)
    assert answer["metadata"]["fallback"] is True
    assert answer["metadata"]["error"] == {"reason": reason, "retryable": retryable}
    assert UPSTREAM_TEXT not in response.text
    assert "Traceback" not in response.text


@pytest.mark.parametrize(
    ("code", "reason", "retryable", "attempts"),
    [
        (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE", True, 3),
        (grpc.StatusCode.INTERNAL, "MODEL_UNAVAILABLE", True, 3),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "MODEL_QUOTA", True, 3),
        (grpc.StatusCode.INVALID_ARGUMENT, "MODEL_REJECTED", False, 1),
        (grpc.StatusCode.PERMISSION_DENIED, "MODEL_CREDENTIALS", False, 1),
        (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", False, 1),
    ],
)
async def test_failing_model(chain, vertex, unique, code, reason, retryable, attempts):
    vertex.fail(code)
    assert_apology(await chain.chat(unique("hello")), reason, retryable=retryable)
    assert len(vertex.calls) == attempts


async def test_apology_is_in_the_users_language_beside_the_reading_as_it_was(chain, vertex, unique):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    korean = (await chain.chat(unique("진짜 짜증나!! 왜 계속 안 돼!!"))).json()
    assert "문제가 발생" in korean["content"]
    assert korean["metadata"]["tone"]["primary"] == "frustrated"
    assert korean["metadata"]["routing"]["scores"]["Lua"] > 0.5
    english = (await chain.chat(unique("the deploy broke again"))).json()
    assert "sorry" in english["content"]


async def test_blocked_and_empty_replies(chain, vertex, unique):
    vertex.block_for_safety(times=1)
    assert_apology(await chain.chat(unique("hello")), "MODEL_BLOCKED", retryable=False)
    vertex.reset()
    vertex.empty()
    assert_apology(await chain.chat(unique("hello")), "MODEL_EMPTY", retryable=True)


async def test_apologies_are_not_cached(chain, vertex, unique):
    message = unique("hello")
    vertex.block_for_safety(times=1)
    assert_apology(await chain.chat(message), "MODEL_BLOCKED", retryable=False)
    vertex.answer("better now")
    assert (await chain.chat(message)).json()["content"] == "better now"


async def test_short_trouble_is_retried_and_unnoticed(chain, vertex, unique):
    await asyncio.gather(*(chain.chat(unique("hello")) for _ in range(40)))  # traffic, a tenth of which may be retried
    vertex.fail(grpc.StatusCode.UNAVAILABLE, times=2)
    answer = (await chain.chat(unique("hello"))).json()
    assert "fallback" not in answer["metadata"]
    assert answer["metadata"]["llm"]["attempts"] == 3
