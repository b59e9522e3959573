"""Tokens are counted, kept within their limit and paid for by name; models are asked only for what they take."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import grpc
import pytest
import pytest_asyncio

from ion.llm.v1 import llm_pb2
from tests.stack.harness import Gateway, failure, llm_gateway, start, vertex_env

LIMIT = 100
INSTRUCTIONS = "You are calm, and you answer in one line."


def conversation(*texts: str) -> llm_pb2.Prompt:
    """The user begins, and speaks last."""
    roles = (llm_pb2.ROLE_USER, llm_pb2.ROLE_MODEL)
    contents = [llm_pb2.Content(role=roles[number % 2], text=text) for number, text in enumerate(texts)]
    return llm_pb2.Prompt(system_instruction=INSTRUCTIONS, contents=contents)


def texts_of(contents: Sequence) -> list[str]:
    return ["".join(part.text for part in content.parts) for content in contents]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(_vertex) -> AsyncIterator[Gateway]:
    env = vertex_env({"us-central1": _vertex.endpoint}, ION_MAX_INPUT_TOKENS=str(LIMIT))
    async with llm_gateway(env) as gateway:
        yield gateway


async def test_oldest_turns_are_left_out_behind_instructions_that_never_change(gateway, vertex, unique):
    long = [f"{unique(str(number))} {'word ' * 20}".strip() for number in range(5)]
    for texts in (long[4:], long[2:], long):
        prompt = conversation(*texts)
        generation = (await gateway.generate("", prompt=prompt)).generation
        request = next(call.request for call in reversed(vertex.calls) if call.method != "CountTokens")
        assert texts_of([request.system_instruction]) == [INSTRUCTIONS]
        kept = texts_of(request.contents)
        assert kept == texts[generation.trimmed_turns :]
        assert generation.usage.input_tokens <= LIMIT
    assert generation.trimmed_turns == 2  # the oldest of the user, and the answer to it
    assert [content.role for content in request.contents] == ["user", "model", "user"]


async def test_a_call_may_set_a_lower_limit_and_no_higher_one(gateway, vertex, unique):
    texts = [f"{unique(str(number))} {'word ' * 10}" for number in range(3)]
    assert (await gateway.generate("", prompt=conversation(*texts))).generation.trimmed_turns == 0
    lower = await gateway.generate("", prompt=conversation(*texts), max_input_tokens=50)
    assert lower.generation.trimmed_turns == 2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.generate(unique("word " * 200), max_input_tokens=10_000)
    assert failure(caught.value).reason_name == "PROMPT_TOO_LARGE"
    assert all(call.method == "CountTokens" for call in vertex.calls[-1:])


async def test_equal_prompts_are_counted_once(gateway, vertex, unique):
    prompt = conversation(unique("how many?"))
    vertex.hang()
    counting = [gateway.stub.CountTokens(llm_pb2.CountTokensRequest(prompt=prompt), timeout=10) for _ in range(5)]
    await vertex.wait_for_calls(1)
    vertex.release()
    totals = {(await count).total_tokens for count in counting}
    totals.add((await gateway.stub.CountTokens(llm_pb2.CountTokensRequest(prompt=prompt), timeout=10)).total_tokens)
    assert len(totals) == 1
    assert vertex.counts["CountTokens"] == 1
    other = llm_pb2.CountTokensRequest(prompt=conversation(unique("how many?")))
    await gateway.stub.CountTokens(other, timeout=10)
    assert vertex.counts["CountTokens"] == 2


async def test_usage_and_cost_by_persona_and_model(gateway, vertex, unique):
    vertex.usage(input_tokens=1000, cached_tokens=400, output_tokens=100, thinking_tokens=50)
    cost = (600 * 1.50 + 400 * 0.15 + 150 * 9.00) / 1e6  # a million tokens of gemini-3.5-flash
    for persona, model, times in (("Payer", "", 2), ("Payer", "gemini-3.5-flash-lite", 1), ("Other", "", 1)):
        for _ in range(times):
            generation = (await gateway.generate(unique("hello"), persona=persona, model=model)).generation
    assert generation.usage == llm_pb2.Usage(
        input_tokens=1000, cached_input_tokens=400, output_tokens=100, thinking_tokens=50
    )
    assert generation.estimated_cost_usd == pytest.approx(cost)
    usage = {(entry.persona, entry.model): entry for entry in (await gateway.statistics()).usage}
    entry = usage["Payer", "gemini-3.5-flash"]
    assert (entry.replies, entry.usage.input_tokens, entry.usage.thinking_tokens) == (2, 2000, 100)
    assert entry.estimated_cost_usd == pytest.approx(2 * cost)
    assert usage["Payer", "gemini-3.5-flash-lite"].replies == 1
    assert usage["Other", "gemini-3.5-flash"].estimated_cost_usd == pytest.approx(cost)


async def test_a_hit_says_what_it_saved_and_is_not_counted_again(gateway, vertex, unique):
    text = unique("hello")
    made = (await gateway.generate(text, persona="Saver")).generation
    saved = (await gateway.generate(text, persona="Saver")).generation
    assert saved.cache == llm_pb2.CACHE_STATUS_HIT
    assert (saved.usage, saved.estimated_cost_usd) == (made.usage, made.estimated_cost_usd)
    (entry,) = [entry for entry in (await gateway.statistics()).usage if entry.persona == "Saver"]
    assert (entry.replies, entry.usage) == (1, made.usage)


async def test_a_parameter_that_the_model_ignores_is_not_sent_and_warned_of_once(gateway, vertex, unique):
    parameters = llm_pb2.GenerationParameters(temperature=0.5, top_p=0.5, max_output_tokens=70)
    for _ in range(2):
        await gateway.generate(unique("hello"), model="gemini-3.8-flash", parameters=parameters)
        config = vertex.calls[-1].request.generation_config
        assert not config.HasField("temperature")
        assert not config.HasField("top_p")
        assert config.max_output_tokens == 70
    await gateway.generate(unique("hello"), model="gemini-3.5-flash", parameters=parameters)
    assert vertex.calls[-1].request.generation_config.temperature == 0.5
    for parameter in ("temperature", "top_p"):
        warned = gateway.process.logged(f"does not take {parameter}")
        assert [record["severity"] for record in warned] == ["WARNING"]
        assert "gemini-3.8-flash" in warned[0]["message"]


async def test_a_call_for_a_retired_model_is_refused_with_the_replacement(gateway, vertex, unique):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.generate(unique("hello"), model="gemini-2.0-flash")
    assert failure(caught.value).reason_name == "MODEL_NOT_FOUND"
    assert "gemini-3.5-flash-lite" in caught.value.details()
    assert not vertex.calls


@pytest.mark.parametrize("command", [("llm_gateway",), ("standalone", "serve")])
async def test_a_retired_model_ends_the_start(command):
    env = vertex_env({"us-central1": "127.0.0.1:1"}, ION_VERTEX_MODEL="gemini-2.5-flash")
    async with start("refused", *command, env=env | {"ION_HTTP_BIND": "127.0.0.1:0"}) as process:
        assert await process.ended() == 2
    assert len(process.lines) == 1, process.lines
    for part in ("ION_VERTEX_MODEL", "gemini-2.5-flash", "2026-10-20", "gemini-3.5-flash-lite"):
        assert part in process.lines[0]
