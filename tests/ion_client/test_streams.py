"""Replies as they come: the choice first, then the text, and what becomes of a stream that does not reach its end."""

from __future__ import annotations

import asyncio

import grpc
import pytest

import ion_client
from ion_client import Done, Routed, Text

MESSAGE = "Why does this keep failing? I am so tired of it."


async def test_the_choice_is_known_before_the_text_and_the_reply_after_it(ion, vertex, unique):
    vertex.hold_after_pieces(1)
    vertex.pieces(["Let us ", "see."])
    async with ion.stream(unique(MESSAGE)) as stream:
        assert stream.choice.persona == "Lua"
        assert stream.analysis.tone.primary == "frustrated"
        texts = aiter(stream)
        assert await anext(texts) == stream.text == "Let us "
        with pytest.raises(RuntimeError, match="not complete"):
            stream.reply  # noqa: B018
        vertex.release()
        assert [text async for text in texts] == ["see."]
    assert stream.reply.text == stream.text == "Let us see."
    assert stream.reply.generation.cache == "miss"
    assert stream.reply.timings.llm_ms > 0
    assert stream.reply.choice == stream.choice


async def test_all_events_can_be_had(ion, vertex, unique):
    vertex.answer("Let us see.")
    events = [event async for event in ion.stream(unique(MESSAGE)).events()]
    assert [type(event) for event in events] == [Routed, Text, Done]
    routed, text, done = events
    assert routed.choice.persona == "Lua"
    assert text.text == done.reply.text == "Let us see."


async def test_nothing_is_known_of_a_stream_that_was_not_begun(ion, vertex):
    stream = ion.stream(MESSAGE)
    with pytest.raises(RuntimeError, match="not known yet"):
        stream.choice  # noqa: B018
    assert stream.text == ""
    assert not vertex.calls


async def test_a_stream_that_breaks_off_tells_its_text_and_why(ion, vertex, unique):
    vertex.pieces(["Let us ", "see."])
    vertex.fail(grpc.StatusCode.UNAVAILABLE, after_pieces=1)
    texts = aiter(ion.stream(unique(MESSAGE)))
    assert await anext(texts) == "Let us "
    with pytest.raises(ion_client.Interrupted) as raised:
        await anext(texts)
    assert raised.value.text == "Let us "
    assert (raised.value.reason, raised.value.retryable) == ("MODEL_INTERRUPTED", True)
    assert isinstance(raised.value.__cause__, ion_client.Unavailable)
    assert len(vertex.calls) == 1


@pytest.mark.parametrize("pieces", [0, 1])
async def test_leaving_a_stream_cancels_the_model_call(ion, vertex, unique, pieces):
    vertex.pieces(["Let us ", "see."])
    vertex.hold_after_pieces(1) if pieces else vertex.hang()
    async with ion.stream(unique(MESSAGE)) as stream:
        for _ in range(pieces):
            await anext(aiter(stream))
        await vertex.wait_for_calls(1)
    await vertex.wait_for_outcome("cancelled")
    assert [event async for event in stream.events()] == []


@pytest.mark.parametrize("kind", ["async grpc", "async http"], indirect=True)
@pytest.mark.parametrize("streamed", [False, True])
async def test_cancelling_a_call_cancels_the_model_call(ion, vertex, unique, streamed):
    vertex.hang()
    call = ion.stream(unique(MESSAGE)).read() if streamed else ion.chat(unique(MESSAGE))
    task = asyncio.create_task(call)
    await vertex.wait_for_calls(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await vertex.wait_for_outcome("cancelled")
    assert len(vertex.calls) == 1


async def test_closing_the_client_ends_a_stream_under_way(ion, vertex, unique):
    vertex.hang()
    async with ion.stream(unique(MESSAGE)) as stream:
        task = asyncio.create_task(stream.read())
        await vertex.wait_for_calls(1)
        await ion.close()
        with pytest.raises(ion_client.Cancelled):
            await task
    await vertex.wait_for_outcome("cancelled")
    assert len(vertex.calls) == 1


@pytest.mark.parametrize("kind", ["sync grpc", "async grpc", "async http"], indirect=True)
async def test_closing_the_client_ends_a_call_under_way(ion, vertex, unique):
    vertex.hang()
    task = asyncio.create_task(ion.chat(unique(MESSAGE)))
    await vertex.wait_for_calls(1)
    await ion.close()
    with pytest.raises(ion_client.Cancelled):
        await task
    await vertex.wait_for_outcome("cancelled")
    assert len(vertex.calls) == 1


async def test_a_sync_call_over_http_still_gets_its_answer_when_another_thread_closes_the_client(chain, vertex, unique):
    vertex.hang()
    with ion_client.connect(chain.url) as ion:
        task = asyncio.create_task(asyncio.to_thread(ion.chat, unique(MESSAGE)))
        await vertex.wait_for_calls(1)
    vertex.release()
    assert (await task).persona == "Lua"
