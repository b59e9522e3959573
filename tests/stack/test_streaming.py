"""A streamed reply: first who answers, then the text as the model says it, then one end; a cut one ends as an error."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio

from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2, router_pb2_grpc
from tests.fake_vertex import FinishReason
from tests.stack.harness import Gateway, Streamed, llm_gateway, read_text, vertex_env

PIECES = ["하나 ", "둘 ", "셋"]
TEXT = "".join(PIECES)


@pytest.fixture
def stream(router_channel):
    stub = router_pb2_grpc.PersonaRouterServiceStub(router_channel)
    return lambda message, **fields: stub.ChatStream(
        router_pb2.ChatStreamRequest(message=message, **fields), timeout=30
    )


async def test_the_choice_comes_while_the_model_has_not_answered(stream, vertex, unique):
    vertex.hang()
    call = stream(unique("hello"), persona="Riri", session_id="s1")
    routed = (await call.read()).routed
    assert (routed.routing.persona, routed.routing.pinned) == ("Riri", True)
    assert routed.analysis.language == "en"
    assert [call.outcome for call in await vertex.wait_for_calls(1)] == ["running"]
    vertex.release()
    rest = await Streamed.read(call)
    assert rest.kinds[-1] == "done"
    assert rest.last.session_id == "s1"


async def test_text_comes_while_the_model_holds_the_rest_and_then_exactly_one_end(stream, vertex, unique):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(2)
    call = stream(unique("hello"))
    assert (await call.read()).WhichOneof("event") == "routed"
    await read_text(call, "하나 둘 ")
    assert vertex.calls[0].outcome == "running"
    vertex.release()
    rest = await Streamed.read(call)
    assert rest.text == "셋"
    assert rest.kinds.count("done") == 1
    generation, timings = rest.last.generation, rest.last.timings
    assert (generation.finish_reason, generation.complete) == (llm_pb2.FINISH_REASON_STOP, True)
    assert generation.usage.input_tokens > 0
    assert generation.usage.output_tokens > 0
    assert (generation.cache, generation.attempts) == (llm_pb2.CACHE_STATUS_MISS, 1)
    assert 0 < generation.time_to_first_token_micros < timings.llm_micros
    assert len(vertex.calls) == 1


@pytest.mark.parametrize("cleanly", [True, False])
async def test_a_reply_that_breaks_off_ends_as_an_error_and_is_not_kept(stream, vertex, unique, cleanly):
    message = unique("hello")
    vertex.pieces(PIECES)
    vertex.break_off(after_characters=5, cleanly=cleanly, times=1)
    broken = await Streamed.read(stream(message))
    assert broken.kinds[0] == "routed"
    assert broken.text == TEXT[:5]
    assert "done" not in broken.kinds
    assert broken.error.reason_name == "MODEL_INTERRUPTED"
    assert len(vertex.calls) == 1  # not again: the text was read
    again = await Streamed.read(stream(message))
    assert (again.text, again.last.generation.cache) == (TEXT, llm_pb2.CACHE_STATUS_MISS)


async def test_a_reply_at_its_limit_says_that_it_is_not_complete_and_is_not_kept(stream, vertex, unique):
    message = unique("hello")
    for calls in (1, 2):
        vertex.finish(FinishReason.MAX_TOKENS, times=1)
        generation = (await Streamed.read(stream(message))).last.generation
        assert (generation.finish_reason, generation.complete) == (llm_pb2.FINISH_REASON_MAX_TOKENS, False)
        assert len(vertex.calls) == calls


async def test_a_model_that_says_nothing_gets_an_apology_as_a_stream(stream, vertex, unique):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    streamed = await Streamed.read(stream(unique("the deploy broke again")))
    assert streamed.kinds == ["routed", "text", "done"]
    assert "sorry" in streamed.text
    assert streamed.last.fallback
    assert streamed.last.failure.retryable


@pytest.mark.parametrize("text_came", [False, True])
async def test_cancelling_stops_the_model_call(stream, vertex, unique, text_came):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(int(text_came))
    call = stream(unique("hello"))
    await call.read()
    if text_came:
        await read_text(call, PIECES[0])
    await vertex.wait_for_calls(1)
    call.cancel()
    await vertex.wait_for_outcome("cancelled")
    assert len(vertex.calls) == 1


async def test_a_second_reader_has_the_text_so_far_and_stays_when_the_first_leaves(stream, vertex, unique):
    message = unique("hello")
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(2)
    calls = []
    for _ in range(3):
        calls.append(stream(message))
        await calls[-1].read()
        await read_text(calls[-1], "하나 둘 ")
    first, *others = calls
    first.cancel()
    vertex.release()
    rests = [await Streamed.read(call) for call in others]
    assert [rest.text for rest in rests] == ["셋", "셋"]
    assert {rest.last.generation.cache for rest in rests} == {llm_pb2.CACHE_STATUS_COALESCED}
    assert [call.outcome for call in vertex.calls] == ["ok"]


async def test_a_complete_stream_is_kept_and_a_hit_comes_as_a_stream(stream, chain, vertex, unique):
    message = unique("hello")
    words = "".join(f"word {number} " for number in range(100))
    vertex.answer(words)
    first = await Streamed.read(stream(message))
    assert first.last.generation.cache == llm_pb2.CACHE_STATUS_MISS
    again = await Streamed.read(stream(message))
    generation = again.last.generation
    assert (generation.cache, generation.attempts) == (llm_pb2.CACHE_STATUS_HIT, 0)
    assert again.text == words
    assert again.kinds.count("text") > 1
    assert again.kinds[-1] == "done"
    whole = await chain.chat(message)
    assert (whole.headers["X-Cache"], whole.json()["content"]) == ("hit", words)
    assert len(vertex.calls) == 1


async def test_the_output_limit_of_the_persona_holds_for_streams(stream, vertex, unique):
    for persona, limit in (("Lua", 600), ("Elro", 1200)):
        await Streamed.read(stream(unique("hello"), persona=persona))
        assert vertex.calls[-1].request.generation_config.max_output_tokens == limit


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(fleet_endpoints) -> AsyncIterator[Gateway]:
    async with llm_gateway(vertex_env(fleet_endpoints)) as gateway:
        yield gateway


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
async def test_a_failure_before_the_first_text_is_tried_elsewhere_and_not_seen(gateway, regions, unique, code):
    central, west, _ = regions
    central.fail(code)
    streamed = await Streamed.read(gateway.stream(unique("hello")))
    assert streamed.text == "from us-west1"
    assert (streamed.last.location, streamed.last.attempts) == ("us-west1", 2)
    assert (len(central.calls), len(west.calls)) == (1, 1)


async def test_a_failure_after_the_first_text_is_reported_and_not_tried_elsewhere(gateway, regions, unique):
    central, *others = regions
    central.pieces(PIECES)
    central.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, after_pieces=2)
    streamed = await Streamed.read(gateway.stream(unique("hello")))
    assert streamed.text == "하나 둘 "
    assert streamed.error.reason_name == "MODEL_INTERRUPTED"
    assert not any(fake.calls for fake in others)
