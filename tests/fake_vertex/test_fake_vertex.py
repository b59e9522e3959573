"""The fake under Google's own client: what the backends' tests do not use themselves."""

import asyncio
import re
import signal
import sys

import grpc
import grpc.aio
import pytest
from google.api_core.exceptions import InvalidArgument, ResourceExhausted, ServiceUnavailable
from google.cloud.aiplatform_v1 import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcAsyncIOTransport
from google.cloud.aiplatform_v1.types import Content, GenerateContentRequest, Part

from tests.fake_vertex import FinishReason

RESOURCE = "projects/p/locations/us-central1/publishers/google/models/gemini-3.5-flash"


def request_of(text: str, **fields: object) -> GenerateContentRequest:
    return GenerateContentRequest(
        **{"model": RESOURCE, "contents": [Content(role="user", parts=[Part(text=text)])], **fields}
    )


async def test_equal_requests_get_equal_answers_and_others_differ(client):
    texts = [
        (await client.generate_content(request_of(text, labels={"persona": persona}), timeout=5))
        .candidates[0]
        .content.parts[0]
        .text
        for text, persona in (("a", "lua"), ("a", "lua"), ("b", "lua"), ("a", "elro"))
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3
    assert "as lua to" in texts[0]


async def test_behaviours_come_in_the_order_given(vertex, client):
    vertex.fail(grpc.StatusCode.RESOURCE_EXHAUSTED, times=2)
    vertex.fail(grpc.StatusCode.UNAVAILABLE, times=1)
    for error in (ResourceExhausted, ResourceExhausted, ServiceUnavailable):
        with pytest.raises(error):
            await client.generate_content(request_of("a"), timeout=5)
    await client.generate_content(request_of("a"), timeout=5)
    assert [call.outcome for call in vertex.calls] == ["failed", "failed", "failed", "ok"]


async def test_a_stream_comes_in_pieces_and_ends_with_reason_and_usage(vertex, client):
    vertex.answer(lambda request: request.contents[-1].parts[0].text.upper())
    stream = await client.stream_generate_content(request_of("a text of more than one piece"), timeout=5)
    *pieces, last = [response async for response in stream]
    assert [piece.candidates[0].content.parts[0].text for piece in pieces] == ["A TEXT OF MORE THAN ONE ", "PIECE"]
    assert last.candidates[0].finish_reason == FinishReason.STOP
    assert last.usage_metadata.candidates_token_count > 0


async def test_a_stream_that_is_cut_off_breaks_midway(vertex, client):
    vertex.answer("a text of more than one piece")
    vertex.cut_off(after_characters=26)
    texts: list[str] = []
    with pytest.raises(ServiceUnavailable):
        await read_into(texts, client)
    assert "".join(texts) == "a text of more than one pi"


async def read_into(texts: list[str], client: PredictionServiceAsyncClient) -> None:
    async for response in await client.stream_generate_content(request_of("a"), timeout=5):
        texts.append(response.candidates[0].content.parts[0].text)  # noqa: PERF401 - what came before the error counts


async def test_a_stream_that_is_cancelled_is_recorded_so(vertex, client):
    vertex.hang()
    task = asyncio.create_task(read_into([], client))
    await vertex.wait_for_calls(1)
    task.cancel()
    await vertex.wait_for_outcome("cancelled")


@pytest.mark.parametrize(
    "fields",
    [
        {"contents": []},
        {"contents": [Content(role="system", parts=[Part(text="x")])]},
        {"labels": {"persona": "Upper Case"}},
        {"labels": {"persona": "x" * 64}},
        {"model": RESOURCE.replace("us-central1", "europe-west1")},
        {"model": "gemini-3.5-flash"},
    ],
)
async def test_what_vertex_would_refuse_is_refused(client, fields):
    with pytest.raises(InvalidArgument):
        await client.generate_content(request_of("a", **fields), timeout=5)


async def test_reset_forgets_behaviours_and_calls(vertex, client):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(ServiceUnavailable):
        await client.generate_content(request_of("a"), timeout=5)
    vertex.reset()
    assert vertex.calls == []
    await client.generate_content(request_of("a"), timeout=5)


async def test_waiting_for_what_never_happens_ends(vertex):
    with pytest.raises(TimeoutError):
        await vertex.wait_for_calls(1, timeout_seconds=0.05)


async def test_as_a_program_it_says_its_port_serves_and_ends_on_sigterm():
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.fake_vertex", "--delay-ms", "1", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        port = re.search(rb"(\d+)\n$", await program.stdout.readline())[1].decode()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = PredictionServiceAsyncClient(transport=PredictionServiceGrpcAsyncIOTransport(channel=channel))
            response = await client.generate_content(request_of("a"), timeout=10)
        program.send_signal(signal.SIGTERM)
        assert await program.wait() == 0
    assert response.candidates[0].content.parts[0].text
