"""OpenAI's own client talks to the personas as it talks to OpenAI, and is told in its own terms when it cannot."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc
import openai
import pytest
import pytest_asyncio

from chassis.access import AccessSettings
from chassis.access.key_store import HISTORY, KeyStore
from chassis.database import open_database
from tests.fake_vertex import FakeVertex, FinishReason
from tests.stack.harness import Chain, standalone, until, vertex_env

URGENT = "지금 당장 해주세요!! 급해요!!"
CALM = "오늘은 하루 종일 조용히 책을 읽었어요."
PIECES = ["하나 ", "둘 ", "셋"]
TEXT = "".join(PIECES)

Complete = Callable[..., Any]


@pytest_asyncio.fixture(loop_scope="session")
async def client(chain: Chain) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{chain.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def complete(client: openai.AsyncOpenAI) -> Complete:
    def complete(*messages: str | dict[str, Any], model: str = "ion-auto", **members: Any) -> Any:
        turns = [{"role": "user", "content": item} if isinstance(item, str) else item for item in messages]
        return client.chat.completions.create(model=model, messages=turns, **members)

    return complete


def text_of(chunks: list[Any]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


async def test_an_answer(complete, vertex, unique):
    vertex.answer("알겠어요.")
    vertex.usage(input_tokens=30, output_tokens=5, cached_tokens=4, thinking_tokens=7)
    answer = await complete(unique(URGENT))
    assert (answer.object, answer.model) == ("chat.completion", "ion-nana")
    assert answer.id == f"chatcmpl-{answer._request_id}"
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content, choice.message.refusal) == ("assistant", "알겠어요.", None)
    assert (choice.finish_reason, choice.index) == ("stop", 0)
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (30, 12, 42)
    assert usage.prompt_tokens_details.cached_tokens == 4
    assert usage.completion_tokens_details.reasoning_tokens == 7
    assert answer.ion["persona"] == "Nana"
    assert answer.ion["resonance_key"].startswith("urgent-")
    assert set(answer.ion["scores"]) == {"Elro", "Lua", "Nana", "Riri"}
    assert answer.ion["cache"] == "miss"
    assert answer.ion["reasoning"]


async def test_the_blocking_client(chain, vertex, unique):
    vertex.pieces(PIECES)

    def talk() -> tuple[str, str]:
        with openai.OpenAI(base_url=f"{chain.url}/v1", api_key="none", max_retries=0) as client:
            messages = [{"role": "user", "content": unique("hello")}]
            answer = client.chat.completions.create(model="ion-elro", messages=messages)
            with client.chat.completions.create(model="ion-elro", messages=messages, stream=True) as stream:
                return answer.choices[0].message.content, text_of(list(stream))

    assert await asyncio.to_thread(talk) == (TEXT, TEXT)


async def test_the_conversation_and_the_instructions_reach_the_model_each_in_its_place(complete, vertex, unique):
    last = unique("And now?")
    await complete(
        {"role": "system", "content": "Speak like a pirate."},
        "Who are you?",
        {"role": "assistant", "content": "루아예요."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": last}]},
        model="ion-lua",
    )
    request = vertex.calls[-1].request
    assert [(item.role, item.parts[0].text) for item in request.contents] == [
        ("user", "Who are you?"),
        ("model", "루아예요."),
        ("user", last),
    ]
    instructions = request.system_instruction.parts[0].text
    assert "Speak like a pirate.\n\nBe brief." in instructions
    assert "Lua" in instructions
    assert last not in instructions


async def test_parameters_reach_the_model_and_what_is_not_given_is_the_personas(complete, vertex, unique):
    await complete(
        unique("hello"),
        model="ion-lua",
        temperature=0,
        top_p=0.5,
        stop=["END", "끝"],
        reasoning_effort="minimal",
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "mood", "schema": {"type": "object", "properties": {"mood": {"type": "string"}}}},
        },
    )
    config = vertex.calls[-1].request.generation_config
    assert (config.temperature, config.top_p, list(config.stop_sequences)) == (0, 0.5, ["END", "끝"])
    assert config.max_output_tokens == 600
    assert config.response_mime_type == "application/json"
    assert "thinking_config" in config


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_limit_of_tokens_is_the_models_and_an_answer_that_meets_it_says_so(complete, vertex, unique, name):
    vertex.finish(FinishReason.MAX_TOKENS)
    message = unique("hello")
    answer = await complete(message, **{name: 5})
    config = vertex.calls[-1].request.generation_config
    assert config.max_output_tokens == 5
    assert "thinking_config" not in config
    assert answer.choices[0].finish_reason == "length"
    chunks = [chunk async for chunk in await complete(message, stream=True, **{name: 5})]
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_the_last_message_alone_is_routed(complete, vertex, unique):
    answer = await complete(unique(URGENT), {"role": "assistant", "content": "네."}, CALM)
    other = await complete(unique(CALM), {"role": "assistant", "content": "네."}, URGENT)
    assert other.model == "ion-nana"
    assert answer.model != "ion-nana"


@pytest.mark.parametrize("persona", ["Elro", "Lua", "Nana", "Riri"])
async def test_a_model_is_a_persona_whatever_the_message(complete, vertex, unique, persona):
    answer = await complete(unique(URGENT), model=f"ion-{persona.lower()}")
    assert answer.model == f"ion-{persona.lower()}"
    assert answer.ion["persona"] == persona
    assert persona in vertex.calls[-1].request.system_instruction.parts[0].text


async def test_models(client):
    models = (await client.models.list()).data
    assert [model.id for model in models] == ["ion-auto", "ion-elro", "ion-lua", "ion-nana", "ion-riri"]
    assert {(model.object, model.owned_by) for model in models} == {("model", "ion")}
    assert await client.models.retrieve("ion-lua") == models[2]
    for unknown in ("gpt-5", "ion-bob", "ion-LUA", "ion-루아"):
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve(unknown)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("model", ["gpt-5", "ion-bob", "ion-LUA", "Lua", ""])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model(complete, vertex, model, stream):
    with pytest.raises(openai.NotFoundError) as caught:
        await complete("hello", model=model, stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    assert not vertex.calls


async def test_a_stream_comes_while_the_model_holds_the_rest(complete, vertex, unique):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    stream = await complete(unique(URGENT), stream=True)
    opening, first = await anext(stream), await anext(stream)
    assert (opening.choices[0].delta.role, opening.model) == ("assistant", "ion-nana")
    assert opening.ion["persona"] == "Nana"
    assert first.choices[0].delta.content == "하나 "
    assert vertex.calls[0].outcome == "running"
    vertex.release()
    rest = [chunk async for chunk in stream]
    assert text_of([first, *rest]) == TEXT
    chunks = [opening, first, *rest]
    assert {(chunk.id, chunk.created, chunk.object) for chunk in chunks} == {
        (opening.id, opening.created, "chat.completion.chunk")
    }
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [*[None] * (len(chunks) - 1), "stop"]
    assert rest[-1].ion["cache"] == "miss"
    assert not any("usage" in chunk.model_fields_set for chunk in chunks)


async def test_a_stream_with_usage(complete, vertex, unique):
    vertex.usage(input_tokens=30, output_tokens=5, thinking_tokens=7)
    stream = await complete(unique("hello"), stream=True, stream_options={"include_usage": True})
    *chunks, last = [chunk async for chunk in stream]
    assert all("usage" in chunk.model_fields_set and chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (30, 12, 42)
    assert last.usage.completion_tokens_details.reasoning_tokens == 7


async def test_the_stream_as_it_is_sent(chain, vertex, unique):
    body = {"model": "ion-lua", "messages": [{"role": "user", "content": unique("hello")}], "stream": True}
    response = await chain.http.post("/v1/chat/completions", json=body)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert "no-transform" in response.headers["Cache-Control"]
    frames = response.text.removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    assert frames[-1] == "data: [DONE]"
    assert json.loads(frames[0][6:])["id"] == f"chatcmpl-{response.headers['X-Request-Id']}"


async def test_long_texts_in_any_language(complete, vertex, unique):
    long = (unique("한 번만 읽어 주세요. ") * 1000)[:10_000]
    await complete(long, {"role": "assistant", "content": "👩‍👩‍👧" * 1000}, long)
    assert [item.parts[0].text for item in vertex.calls[-1].request.contents] == [long, "👩‍👩‍👧" * 1000, long]


async def test_a_stored_answer_is_given_again_unless_the_cache_is_to_be_passed(complete, vertex, unique):
    vertex.usage(input_tokens=30, output_tokens=5)
    message = unique("hello")
    first = await complete(message)
    again = await complete(message)
    assert (again.ion["cache"], again.choices[0].message.content) == ("hit", first.choices[0].message.content)
    assert again.usage == first.usage
    assert again.id != first.id
    streamed = [chunk async for chunk in await complete(message, stream=True)]
    assert (streamed[-1].ion["cache"], text_of(streamed)) == ("hit", first.choices[0].message.content)
    assert len(vertex.calls) == 1
    fresh = await complete(message, extra_headers={"Cache-Control": "no-cache"})
    assert fresh.ion["cache"] == "off"
    assert len(vertex.calls) == 2


REFUSED = [
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
    ({"n": 2}, "n", "unsupported_parameter"),
    ({"seed": 1}, "seed", "unsupported_parameter"),
    ({"logprobs": True}, "logprobs", "unsupported_parameter"),
    ({"presence_penalty": 1}, "presence_penalty", "unsupported_parameter"),
    ({"response_format": {"type": "json_object"}}, "response_format.type", "unsupported_parameter"),
    ({"extra_body": {"colour": "red"}}, "colour", "unknown_parameter"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
]


@pytest.mark.parametrize(("members", "param", "code"), REFUSED)
async def test_what_is_not_taken_is_refused_by_name(complete, vertex, members, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        await complete("hello", **members)
    error = caught.value
    assert (error.param, error.code, error.type) == (param, code, "invalid_request_error")
    assert not vertex.calls


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (
            [{"role": "system", "content": "x"}, "hello", {"role": "assistant", "content": "b\0"}, "c"],
            "messages[2].content",
        ),
        ([{"role": "system", "content": "x" * 32_001}, "hello"], "messages"),
        ([*["x" * 90_000] * 5], "messages"),
        (["hi"] * 1001, "messages"),
        ([" "], "messages[0].content"),
    ],
)
async def test_what_the_router_refuses_is_told_in_terms_of_the_request(complete, vertex, messages, param, stream):
    with pytest.raises(openai.BadRequestError) as caught:
        await complete(*messages, stream=stream)
    assert caught.value.param == param
    assert not vertex.calls


async def test_a_schema_that_is_too_large(complete, vertex):
    schema = {"type": "object", "description": "x" * 9000}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    with pytest.raises(openai.BadRequestError) as caught:
        await complete("hello", response_format=wanted)
    assert caught.value.param == "response_format.json_schema.schema"


@pytest.mark.parametrize(
    ("method", "path", "content", "content_type", "status"),
    [
        ("POST", "/v1/chat/completions", b"{bad", "application/json", 400),
        ("POST", "/v1/chat/completions", b"", "application/json", 400),
        ("POST", "/v1/chat/completions", b'{"model": "\xff"}', "application/json", 400),
        ("POST", "/v1/chat/completions", b"{}", "text/plain", 415),
        ("POST", "/v1/chat/completions", b" " * (2 << 20), "application/json", 413),
        ("GET", "/v1/chat/completions", b"", "application/json", 405),
        ("GET", "/v1/nothing", b"", "application/json", 404),
    ],
)
async def test_every_refusal_has_the_shape_that_clients_read(chain, method, path, content, content_type, status):
    response = await chain.http.request(method, path, content=content, headers={"Content-Type": content_type})
    assert response.status_code == status
    answer = response.json()
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["request_id"] == response.headers["X-Request-Id"]


async def test_a_bad_timeout(complete, vertex):
    with pytest.raises(openai.BadRequestError) as caught:
        await complete("hello", extra_headers={"X-Request-Timeout": "soon"})
    assert caught.value.param == "X-Request-Timeout"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_cannot_answer_is_an_error_and_no_apology(complete, vertex, unique, stream):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(openai.APIStatusError) as caught:
        await complete(unique("hello"), stream=stream)
    error = caught.value
    assert (error.status_code, error.code, error.type) == (503, "model_unavailable", "server_error")
    assert int(error.response.headers["Retry-After"]) >= 1
    assert "upstream" not in error.response.text


@pytest.mark.parametrize("stream", [False, True])
async def test_no_answer_in_time(complete, vertex, unique, stream):
    vertex.hang()
    with pytest.raises(openai.InternalServerError) as caught:
        await complete(unique("hello"), stream=stream, extra_headers={"X-Request-Timeout": "0.5"})
    assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_model_rejects_is_a_bad_request(complete, vertex, unique, stream):
    vertex.fail(grpc.StatusCode.INVALID_ARGUMENT)
    with pytest.raises(openai.BadRequestError) as caught:
        await complete(unique("hello"), stream=stream)
    assert caught.value.code == "model_rejected"


async def test_what_the_models_filters_block(complete, vertex, unique):
    vertex.block_for_safety()
    answer = await complete(unique("hello"), model="ion-lua")
    (choice,) = answer.choices
    assert (choice.finish_reason, choice.message.content, answer.model) == ("content_filter", "", "ion-lua")
    assert answer.usage.total_tokens == 0
    stream = await complete(unique("hello"), stream=True, stream_options={"include_usage": True})
    opening, end, usage = [chunk async for chunk in stream]
    assert (opening.choices[0].delta.content, end.choices[0].finish_reason) == ("", "content_filter")
    assert (usage.choices, usage.usage.total_tokens) == ([], 0)


async def test_an_answer_that_breaks_off_raises_and_has_no_end(complete, chain, vertex, unique):
    vertex.pieces(PIECES)
    vertex.break_off(after_characters=5, cleanly=True)
    stream, chunks = await complete(unique("hello"), stream=True), []

    async def read() -> None:
        async for chunk in stream:
            chunks.append(chunk)  # noqa: PERF401 - what came before the failure is wanted

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert text_of(chunks) == TEXT[:5]
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    assert (caught.value.code, caught.value.type) == ("model_interrupted", "server_error")
    body = {"model": "ion-lua", "messages": [{"role": "user", "content": unique("hello")}], "stream": True}
    sent = (await chain.http.post("/v1/chat/completions", json=body)).text
    assert '"error":{"message":' in sent.rstrip().rpartition("\n\n")[2]
    assert "[DONE]" not in sent


async def test_a_reader_who_leaves_cancels_the_model_call(complete, vertex, unique):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    stream = await complete(unique("hello"), stream=True)
    assert (await anext(stream)).choices
    await stream.close()
    await vertex.wait_for_outcome("cancelled")


@pytest.mark.parametrize("stream", [False, True])
async def test_who_leaves_before_the_first_text_cancels_the_model_call(complete, vertex, unique, stream):
    vertex.hang()
    asking = asyncio.create_task(complete(unique("hello"), stream=stream))
    await vertex.wait_for_calls(1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await vertex.wait_for_outcome("cancelled")


Guarded = Callable[[str], Awaitable[openai.AsyncOpenAI]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(_vertex: FakeVertex, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    """A client with a new key of the tier, of a chain that lets nobody else in."""
    folder = str(tmp_path_factory.mktemp("state"))
    limits = {"ION_RATE_LIMIT": "2/day", "ION_RATE_LIMIT_TIERS": "pro=off", "ION_TOKEN_LIMIT_TIERS": "pro=40/day"}
    env = vertex_env({"us-central1": _vertex.endpoint}, ION_AUTH="api-key", ION_STATE_DIR=folder, **limits)
    async with (
        standalone(env) as chain,
        open_database(AccessSettings(ION_STATE_DIR=folder), [HISTORY]) as database,
        AsyncExitStack() as stack,
    ):

        async def client(tier: str) -> openai.AsyncOpenAI:
            _, key = await KeyStore(database, timeout_seconds=20).create("test", tier)
            client = openai.AsyncOpenAI(base_url=f"{chain.url}/v1", api_key=key, max_retries=0)
            return await stack.enter_async_context(client)

        yield client


async def say(client: openai.AsyncOpenAI, text: str, **members: Any) -> Any:
    return await client.chat.completions.create(
        model="ion-lua", messages=[{"role": "user", "content": text}], **members
    )


async def test_a_key_is_asked_for(guarded, vertex, unique):
    client = await guarded("pro")
    assert (await say(client, unique("hello"))).choices
    for stream in (False, True):
        with pytest.raises(openai.AuthenticationError) as caught:
            await say(client.with_options(api_key="sk-nobody"), "hello", stream=stream)
        assert (caught.value.code, caught.value.type) == ("invalid_api_key", "authentication_error")
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="sk-nobody").models.list()


async def test_a_limit_of_requests(guarded, vertex, unique):
    client = await guarded("")
    for _ in range(2):
        await client.models.list()
    with pytest.raises(openai.RateLimitError) as caught:
        await say(client, unique("hello"))
    assert (caught.value.code, caught.value.type) == ("rate_limit_exceeded", "rate_limit_error")
    assert int(caught.value.response.headers["Retry-After"]) >= 1
    assert caught.value.response.headers["RateLimit-Remaining"] == "0"


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_count_for_whoever_asked(guarded, vertex, unique, stream):
    vertex.usage(input_tokens=30, output_tokens=5, thinking_tokens=6)
    client = await guarded("pro")
    answer = await say(client, unique("hello"), stream=stream)
    if stream:
        assert [chunk async for chunk in answer]

    async def refused() -> bool:
        try:
            await client.models.list()
        except openai.RateLimitError:
            return True
        return False

    await until(refused)
