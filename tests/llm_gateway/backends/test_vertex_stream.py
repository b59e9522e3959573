import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import grpc
import grpc.aio
import pytest
from google.cloud.aiplatform_v1 import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcAsyncIOTransport

from chassis.errors import DeadlineExceeded, IonError
from llm_gateway.generation import (
    FinishReason,
    GenerationRequest,
    ModelBlocked,
    ModelCredentials,
    ModelEmpty,
    ModelInterrupted,
    ModelNotFound,
    ModelQuota,
    ModelRejected,
    ModelUnavailable,
    Parameters,
    Reply,
    Usage,
)
from tests.fake_vertex import UPSTREAM_TEXT
from tests.fake_vertex import FinishReason as VertexFinishReason
from tests.llm_gateway.backends.vertex_calls import LOCATION, MODEL, PROMPT, REQUEST, RESOURCE, ask, open_stream

PIECES = ["Good ", "to see ", "you."]
Stream = AsyncGenerator[str | Reply, None]


async def read_into(events: list[str | Reply], stream: Stream) -> None:
    async with aclosing(stream):
        async for event in stream:
            events.append(event)  # noqa: PERF401 - what came before an error counts


async def read(stream: Stream) -> list[str | Reply]:
    events: list[str | Reply] = []
    await read_into(events, stream)
    return events


async def test_text_comes_in_the_pieces_that_vertex_makes_then_the_whole_reply(vertex, backend):
    vertex.pieces(PIECES)
    vertex.usage(input_tokens=100, output_tokens=20, cached_tokens=60, thinking_tokens=7)
    *pieces, reply = await read(open_stream(backend))
    assert pieces == PIECES
    assert reply == Reply("Good to see you.", MODEL, LOCATION, FinishReason.STOP, Usage(100, 20, 60, 7))


async def test_a_piece_is_passed_on_before_the_next_is_made(vertex, backend):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    stream = open_stream(backend)
    assert await anext(stream) == PIECES[0]
    assert vertex.calls[0].outcome == "running"
    vertex.release()
    assert [await anext(stream) for _ in PIECES[1:]] == PIECES[1:]
    await stream.aclose()


async def test_a_stream_asks_for_what_a_single_reply_does(vertex, backend):
    request = GenerationRequest(MODEL, PROMPT, Parameters(temperature=0.0, minimal_thinking=True), persona="Lua")
    await ask(backend, request)
    await read(open_stream(backend, request))
    single, streamed = vertex.calls
    assert (single.method, streamed.method) == ("GenerateContent", "StreamGenerateContent")
    assert single.request == streamed.request
    assert single.metadata == streamed.metadata


async def test_metadata_of_a_stream_is_what_googles_client_sends(vertex, backend):
    await read(open_stream(backend))
    async with grpc.aio.insecure_channel(vertex.endpoint) as channel:
        client = PredictionServiceAsyncClient(transport=PredictionServiceGrpcAsyncIOTransport(channel=channel))
        request = {"model": RESOURCE, "contents": [{"role": "user", "parts": [{"text": "x"}]}]}
        async for _ in await client.stream_generate_content(request, timeout=5):
            pass
    ours, theirs = (call.metadata for call in vertex.calls)
    assert ours == theirs


async def test_thoughts_are_no_text_of_a_stream(vertex, backend):
    vertex.think("The person seems sad.")
    vertex.pieces(PIECES)
    *pieces, reply = await read(open_stream(backend))
    assert pieces == PIECES
    assert reply.text == "".join(PIECES)


async def test_blanks_wait_for_something_visible(vertex, backend):
    vertex.pieces(["\n", "  ", "Hello", " ", "you"])
    *pieces, reply = await read(open_stream(backend))
    assert pieces == ["\n  Hello", " ", "you"]
    assert reply.text == "\n  Hello you"


async def test_a_stream_that_reached_its_limit_says_so(vertex, backend):
    vertex.pieces(PIECES)
    vertex.finish(VertexFinishReason.MAX_TOKENS)
    assert (await read(open_stream(backend)))[-1].finish_reason is FinishReason.MAX_TOKENS


def _blank(vertex):
    vertex.pieces(["\n", " "])


def _cut_before_text(vertex):
    vertex.think("Let me see")
    vertex.answer("")
    vertex.finish(VertexFinishReason.MAX_TOKENS)


@pytest.mark.parametrize(
    ("happens", "error"),
    [
        (lambda vertex: vertex.empty(), ModelEmpty),
        (_blank, ModelEmpty),
        (_cut_before_text, ModelEmpty),
        (lambda vertex: vertex.break_off(after_characters=0, cleanly=True), ModelEmpty),
        (lambda vertex: vertex.block_prompt(), ModelBlocked),
        (lambda vertex: vertex.block_for_safety(), ModelBlocked),
    ],
)
async def test_a_stream_without_text_yields_nothing_and_fails(vertex, backend, happens, error):
    happens(vertex)
    events: list[str | Reply] = []
    with pytest.raises(error):
        await read_into(events, open_stream(backend))
    assert events == []


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        (VertexFinishReason.SAFETY, ModelBlocked),
        (VertexFinishReason.SPII, ModelBlocked),
        (99, ModelBlocked),
        (VertexFinishReason.OTHER, ModelEmpty),
        (VertexFinishReason.MALFORMED_FUNCTION_CALL, ModelEmpty),
    ],
)
async def test_a_stream_that_the_model_ends_badly_is_no_reply(vertex, backend, reason, error):
    vertex.pieces(PIECES)
    vertex.finish(reason)
    events: list[str | Reply] = []
    with pytest.raises(error):
        await read_into(events, open_stream(backend))
    assert events == PIECES


async def test_a_stream_that_ends_without_a_reason_was_interrupted(vertex, backend):
    vertex.pieces(PIECES)
    vertex.break_off(after_characters=len("Good to see "), cleanly=True)
    events: list[str | Reply] = []
    with pytest.raises(ModelInterrupted):
        await read_into(events, open_stream(backend))
    assert events == PIECES[:2]


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, ModelUnavailable),
        (grpc.StatusCode.CANCELLED, ModelUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ModelQuota),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.NOT_FOUND, ModelNotFound),
        (grpc.StatusCode.INVALID_ARGUMENT, ModelRejected),
        (grpc.StatusCode.PERMISSION_DENIED, ModelCredentials),
    ],
)
async def test_a_status_is_translated_wherever_it_comes_and_not_retried(vertex, backend, code, error, pieces):
    vertex.pieces(PIECES)
    vertex.fail(code, after_pieces=pieces, retry_after_seconds=1.5)
    events: list[str | Reply] = []
    with pytest.raises(IonError) as caught:
        await read_into(events, open_stream(backend))
    assert type(caught.value) is error
    assert UPSTREAM_TEXT not in str(caught.value)
    assert caught.value.retry_after_seconds == (1.5 if error in (ModelQuota, ModelUnavailable) else None)
    assert events == PIECES[:pieces]
    assert len(vertex.calls) == 1


async def test_a_connection_lost_midway_is_unavailability(vertex, backend):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    stream = open_stream(backend)
    await anext(stream)
    await vertex.stop()
    with pytest.raises(ModelUnavailable):
        await anext(stream)


async def test_the_time_spans_the_whole_stream(vertex, backend):
    await ask(backend)  # connected, so that the time goes to the stream
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    stream = open_stream(backend, timeout_seconds=0.5)
    assert await anext(stream) == PIECES[0]
    with pytest.raises(DeadlineExceeded):
        await anext(stream)
    (call,) = await vertex.wait_for_outcome("cancelled")
    assert 0 < call.time_remaining_seconds < 0.51


@pytest.mark.parametrize("pieces", [0, 1])
async def test_cancelling_what_waits_for_a_stream_cancels_the_call(vertex, backend, pieces):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(pieces)
    stream = open_stream(backend, timeout_seconds=60.0)
    for _ in range(pieces):
        await anext(stream)
    waiting = asyncio.create_task(anext(stream))
    await vertex.wait_for_calls(1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await vertex.wait_for_outcome("cancelled")


async def test_closing_a_stream_cancels_the_call(vertex, backend):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    stream = open_stream(backend, timeout_seconds=60.0)
    await anext(stream)
    await stream.aclose()
    await vertex.wait_for_outcome("cancelled")


async def test_a_stream_that_is_never_read_makes_no_call(vertex, backend):
    await open_stream(backend).aclose()
    assert vertex.calls == []


async def test_one_closed_stream_leaves_the_others_alone(vertex, backend):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    first, second = open_stream(backend, REQUEST), open_stream(backend, REQUEST)
    assert [await anext(first), await anext(second)] == [PIECES[0]] * 2
    await first.aclose()
    await vertex.wait_for_outcome("cancelled")
    vertex.release()
    *pieces, reply = await read(second)
    assert pieces == PIECES[1:]
    assert reply.text == "".join(PIECES)
