"""Streams and delays as a test orders them, event by event."""

import grpc
import pytest
from google.api_core.exceptions import DeadlineExceeded, ResourceExhausted, ServiceUnavailable
from google.cloud.aiplatform_v1 import LlmUtilityServiceAsyncClient
from google.cloud.aiplatform_v1.services.llm_utility_service.transports import LlmUtilityServiceGrpcAsyncIOTransport
from google.cloud.aiplatform_v1.types import Content, CountTokensRequest, GenerateContentRequest, Part

from tests.fake_vertex import FakeVertex
from tests.fake_vertex.law import LatencyLaw

RESOURCE = "projects/p/locations/us-central1/publishers/google/models/gemini-3.5-flash"
REQUEST = GenerateContentRequest(model=RESOURCE, contents=[Content(role="user", parts=[Part(text="hello")])])
PIECES = ["one ", "and another, of more than twenty-four characters ", "three"]


def text_of(response):
    return response.candidates[0].content.parts[0].text


async def open_stream(client, timeout_seconds: float = 5):
    async for response in await client.stream_generate_content(REQUEST, timeout=timeout_seconds):
        yield response


async def read(stream, count: int) -> list[str]:
    return [text_of(await anext(stream)) for _ in range(count)]


@pytest.fixture(autouse=True)
def _pieces(vertex: FakeVertex) -> None:
    vertex.pieces(PIECES)


async def test_a_stream_comes_in_exactly_the_pieces_given(client):
    *pieces, last = [response async for response in open_stream(client)]
    assert [text_of(piece) for piece in pieces] == PIECES
    assert last.usage_metadata.total_token_count > 0


async def test_a_unary_answer_is_all_the_pieces(client):
    assert text_of(await client.generate_content(REQUEST, timeout=5)) == "".join(PIECES)


async def test_an_answer_takes_the_place_of_pieces(vertex, client):
    vertex.answer("x" * 30)
    assert await read(open_stream(client), 2) == ["x" * 24, "x" * 6]


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_a_stream_holds_after_its_pieces_until_released(vertex, client, count):
    vertex.hold_after_pieces(count)
    stream = open_stream(client)
    assert await read(stream, count) == PIECES[:count]
    assert vertex.calls[0].outcome == "running"
    vertex.release()
    assert await read(stream, len(PIECES) - count) == PIECES[count:]
    assert (await anext(stream)).usage_metadata.total_token_count > 0


@pytest.mark.parametrize("count", [0, 2, 3])
async def test_a_stream_that_holds_sends_no_more(vertex, client, count):
    vertex.hold_after_pieces(count)
    stream = open_stream(client, timeout_seconds=0.2)
    assert await read(stream, count) == PIECES[:count]
    with pytest.raises(DeadlineExceeded):
        await anext(stream)


async def test_holding_more_pieces_than_there_are_holds_the_end(vertex, client):
    vertex.hold_after_pieces(10)
    stream = open_stream(client, timeout_seconds=0.2)
    assert await read(stream, 3) == PIECES
    with pytest.raises(DeadlineExceeded):
        await anext(stream)


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_a_stream_fails_after_its_pieces_with_the_status_given(vertex, client, count):
    vertex.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, after_pieces=count, retry_after_seconds=2, times=1)
    stream = open_stream(client)
    assert await read(stream, count) == PIECES[:count]
    with pytest.raises(ResourceExhausted) as failure:
        await anext(stream)
    assert failure.value.details[0].retry_delay.seconds == 2


async def test_a_stream_that_breaks_off_cleanly_has_no_end(vertex, client):
    vertex.break_off(after_characters=6, cleanly=True)
    responses = [response async for response in open_stream(client)]
    assert [text_of(response) for response in responses] == ["one ", "an"]
    assert not any(response.candidates[0].finish_reason or response.usage_metadata for response in responses)


async def test_a_stream_that_breaks_off_uncleanly_fails_there(vertex, client):
    vertex.break_off(after_characters=6, cleanly=False)
    stream = open_stream(client)
    assert await read(stream, 2) == ["one ", "an"]
    with pytest.raises(ServiceUnavailable):
        await anext(stream)


async def test_a_unary_answer_that_breaks_off_has_no_reason_or_fails(vertex, client):
    vertex.break_off(after_characters=6, cleanly=True, times=1)
    answer = await client.generate_content(REQUEST, timeout=5)
    assert (text_of(answer), answer.candidates[0].finish_reason, bool(answer.usage_metadata)) == ("one an", 0, False)
    vertex.break_off(after_characters=6, cleanly=False, times=1)
    with pytest.raises(ServiceUnavailable):
        await client.generate_content(REQUEST, timeout=5)


# Under a law that is scaled to days, what is not to be waited for comes at once and the rest never.
DAYS = 1e6


async def test_the_rest_of_a_stream_comes_later_than_its_first_token(vertex, client):
    vertex.follow_law(seed=1, first_token_share=0.0, scale=DAYS)
    stream = open_stream(client, timeout_seconds=0.2)
    assert await read(stream, 1) == PIECES[:1]
    with pytest.raises(DeadlineExceeded):
        await anext(stream)


@pytest.mark.parametrize("share", [None, 0.5])
async def test_a_stream_waits_for_its_first_token(vertex, client, share):
    vertex.follow_law(seed=1, first_token_share=share, scale=DAYS)
    with pytest.raises(DeadlineExceeded):
        await anext(open_stream(client, timeout_seconds=0.2))


@pytest.mark.parametrize("share", [None, 0.0])
async def test_a_unary_answer_takes_the_whole_time(vertex, client, share):
    vertex.follow_law(seed=1, first_token_share=share, scale=DAYS)
    with pytest.raises(DeadlineExceeded):
        await client.generate_content(REQUEST, timeout=0.2)


async def test_the_law_does_not_delay_counting(vertex):
    vertex.follow_law(seed=1, scale=DAYS)
    request = CountTokensRequest(endpoint=RESOURCE, model=RESOURCE, contents=REQUEST.contents)
    async with grpc.aio.insecure_channel(vertex.endpoint) as channel:
        client = LlmUtilityServiceAsyncClient(transport=LlmUtilityServiceGrpcAsyncIOTransport(channel=channel))
        assert (await client.count_tokens(request, timeout=5)).total_tokens > 0


async def test_each_call_takes_the_next_delay_of_the_law(vertex, client):
    """Failing calls too, so that what comes after them is the same with and without."""
    vertex.follow_law(seed=1, scale=1e-9)
    vertex.fail(grpc.StatusCode.UNAVAILABLE, times=1)
    with pytest.raises(ServiceUnavailable):
        await client.generate_content(REQUEST, timeout=5)
    await client.generate_content(REQUEST, timeout=5)
    await read(open_stream(client), 1)
    law = LatencyLaw(seed=1, location="us-central1", scale=1e-9)
    assert vertex.next_delay() == [law.draw() for _ in range(4)][-1]
