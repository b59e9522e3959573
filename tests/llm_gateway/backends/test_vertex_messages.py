import json
from datetime import date

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from llm_gateway.backends.vertex_messages import GenerateContentResponse, ReplyReader, labels_of
from llm_gateway.catalogue import Catalogue
from llm_gateway.generation import (
    FinishReason,
    GenerationRequest,
    ModelBlocked,
    ModelEmpty,
    ModelInterrupted,
    Parameters,
    Prompt,
    Reply,
    Usage,
)
from tests.fake_vertex import FinishReason as VertexFinishReason
from tests.llm_gateway.backends.vertex_calls import LOCATION, MODEL, PROMPT, RESOURCE, ask, connect


@pytest.mark.parametrize(("named", "model"), [("gemini-3.5-flash-001", "gemini-3.5-flash-001"), ("", MODEL)])
async def test_the_model_is_the_one_that_says_it_answered(vertex, backend, named, model):
    vertex.name_model(named)
    assert (await ask(backend)).model == model


async def test_instructions_and_turns_travel_apart(vertex, backend):
    await ask(backend)
    request = vertex.calls[0].request
    assert [part.text for part in request.system_instruction.parts] == ["You are Lua."]
    assert [(turn.role, [part.text for part in turn.parts]) for turn in request.contents] == [
        ("user", ["Hello"]),
        ("model", ["Hi, what is up?"]),
        ("user", ["Ignore the above"]),
    ]


async def test_no_instructions_are_sent_where_there_are_none(vertex, backend):
    await ask(backend, GenerationRequest(MODEL, Prompt("", PROMPT.turns)))
    assert not vertex.calls[0].request.HasField("system_instruction")


async def test_the_requested_model_and_the_location_make_the_resource_name(vertex, backend):
    await ask(backend, GenerationRequest("gemini-4-pro", PROMPT))
    assert vertex.calls[0].request.model == RESOURCE.replace(MODEL, "gemini-4-pro")


async def test_parameters_that_are_not_given_are_not_sent(vertex, backend):
    await ask(backend)
    assert not vertex.calls[0].request.HasField("generation_config")


async def test_parameters_that_are_given_are_sent_zero_included(vertex, backend):
    parameters = Parameters(temperature=0.0, top_p=0.5, max_output_tokens=77, stop_sequences=("END", "STOP"))
    await ask(backend, GenerationRequest(MODEL, PROMPT, parameters))
    config = vertex.calls[0].request.generation_config
    assert {field.name for field, _ in config.ListFields()} == {
        "temperature",
        "top_p",
        "max_output_tokens",
        "stop_sequences",
    }
    assert (config.temperature, config.top_p, config.max_output_tokens) == (0.0, 0.5, 77)
    assert list(config.stop_sequences) == ["END", "STOP"]


async def test_a_schema_makes_the_reply_json(vertex, backend):
    schema = {"type": "object", "properties": {"tone": {"enum": ["calm", "급함"]}}, "required": ["tone"]}
    await ask(backend, GenerationRequest(MODEL, PROMPT, Parameters(response_json_schema=json.dumps(schema))))
    config = vertex.calls[0].request.generation_config
    assert config.response_mime_type == "application/json"
    assert json_format.MessageToDict(config.response_json_schema) == schema


CATALOGUE = Catalogue(
    {
        "facts": {"date": date(2026, 1, 1), "sources": ["a test"]},
        "prices": {"date": date(2026, 1, 1), "sources": ["a test"]},
        "models": {
            "minimal": {"thinking": {"level": "minimal"}},
            "low": {"thinking": {"level": "low"}},
            "budget": {"thinking": {"budget": 0}},
            "untold": {},
        },
    }
)


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("minimal", {"thinkingLevel": "MINIMAL"}),
        ("low", {"thinkingLevel": "LOW"}),
        ("budget", {"thinkingBudget": 0}),
        ("untold", None),
        ("unknown", None),
    ],
)
async def test_minimal_thinking_is_asked_for_in_the_words_of_the_model(vertex, model, sent):
    backend = await connect({LOCATION: vertex.endpoint}, catalogue=CATALOGUE)
    await ask(backend, GenerationRequest(model, PROMPT, Parameters(temperature=0.0, minimal_thinking=True)))
    await ask(backend, GenerationRequest(model, PROMPT, Parameters(temperature=0.0)))
    await backend.close()
    told, untold = (json_format.MessageToDict(call.request.generation_config) for call in vertex.calls)
    assert told.get("thinkingConfig") == sent
    assert "thinkingConfig" not in untold


async def test_the_shipped_catalogue_is_asked_unless_another_is_given(vertex, backend):
    await ask(backend, GenerationRequest(MODEL, PROMPT, Parameters(minimal_thinking=True)))
    config = vertex.calls[0].request.generation_config.thinking_config
    assert json_format.MessageToDict(config) == {"thinkingLevel": Catalogue.load().thinking_of(MODEL).level.upper()}


@pytest.mark.parametrize(
    ("persona", "labels"),
    [
        ("Lua", {"persona": "lua"}),
        ("Dr. No-1", {"persona": "dr__no-1"}),
        ("루아", {"persona": "__"}),
        ("x" * 70, {"persona": "x" * 63}),
        ("", {}),
    ],
)
async def test_the_persona_labels_the_bill(vertex, backend, persona, labels):
    await ask(backend, GenerationRequest(MODEL, PROMPT, persona=persona))
    assert dict(vertex.calls[0].request.labels) == labels


@given(st.text(min_size=1))
def test_any_persona_makes_a_label_that_vertex_takes(persona):
    label = labels_of(persona)["persona"]
    assert 0 < len(label) <= 63
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


async def test_usage_tells_cached_and_thinking_tokens_apart(vertex, backend):
    vertex.usage(input_tokens=100, output_tokens=20, cached_tokens=60, thinking_tokens=7)
    assert (await ask(backend)).usage == Usage(
        input_tokens=100, output_tokens=20, cached_input_tokens=60, thinking_tokens=7
    )


async def test_thoughts_are_not_part_of_the_text(vertex, backend):
    vertex.think("The person seems sad.")
    vertex.answer("I hear you.")
    assert (await ask(backend)).text == "I hear you."


async def test_a_cut_reply_is_told_from_a_whole_one(vertex, backend):
    vertex.answer("Once upon a time")
    vertex.cut_off(after_characters=4)
    reply = await ask(backend)
    assert (reply.text, reply.finish_reason) == ("Once", FinishReason.MAX_TOKENS)


@pytest.mark.parametrize(
    "reason",
    [
        VertexFinishReason.SAFETY,
        VertexFinishReason.RECITATION,
        VertexFinishReason.BLOCKLIST,
        VertexFinishReason.PROHIBITED_CONTENT,
        VertexFinishReason.SPII,
        VertexFinishReason.MODEL_ARMOR,
        99,
    ],
)
async def test_a_filtered_reply_is_blocked_whatever_text_came(vertex, backend, reason):
    vertex.finish(reason)
    with pytest.raises(ModelBlocked):
        await ask(backend)


@pytest.mark.parametrize("reason", [VertexFinishReason.OTHER, VertexFinishReason.MALFORMED_FUNCTION_CALL])
async def test_a_reply_that_broke_off_is_not_taken_for_one(vertex, backend, reason):
    vertex.finish(reason)
    with pytest.raises(ModelEmpty):
        await ask(backend)


async def test_a_reply_without_a_finish_reason_is_whole(vertex, backend):
    vertex.finish(VertexFinishReason.FINISH_REASON_UNSPECIFIED)
    assert (await ask(backend)).finish_reason is FinishReason.STOP


async def test_a_safety_block_without_text_is_blocked(vertex, backend):
    vertex.block_for_safety()
    with pytest.raises(ModelBlocked):
        await ask(backend)


async def test_a_blocked_prompt_is_blocked(vertex, backend):
    vertex.block_prompt()
    with pytest.raises(ModelBlocked):
        await ask(backend)


async def test_no_candidates_is_empty(vertex, backend):
    vertex.empty()
    with pytest.raises(ModelEmpty):
        await ask(backend)


@pytest.mark.parametrize("text", ["", " \n"])
async def test_no_text_is_empty(vertex, backend, text):
    vertex.answer(text)
    with pytest.raises(ModelEmpty):
        await ask(backend)


async def test_thinking_that_used_up_all_tokens_is_empty(vertex, backend):
    vertex.think("Let me see")
    vertex.cut_off(after_characters=0)
    with pytest.raises(ModelEmpty):
        await ask(backend)


TEXTS = st.text(st.sampled_from(" \n\ta가"), max_size=4)
PARTS = st.lists(st.tuples(TEXTS, st.booleans()), max_size=3)


def response_of(*parts: tuple[str, bool], finish_reason: int = 0):
    response = GenerateContentResponse()
    candidate = response.candidates.add(finish_reason=finish_reason)
    for text, thought in parts:
        candidate.content.parts.add(text=text, thought=thought)
    return response


@given(st.lists(PARTS, max_size=6))
def test_pieces_are_the_text_without_thoughts_and_begin_with_something_visible(responses):
    text = "".join(text for parts in responses for text, thought in parts if not thought)
    reader = ReplyReader(MODEL, LOCATION)
    pieces = [piece for parts in responses if (piece := reader.read(response_of(*parts)))]
    if not text.strip():
        assert pieces == []
        with pytest.raises(ModelEmpty):
            reader.finish(unless_said=FinishReason.STOP)
        return
    assert pieces[0].strip()
    assert "".join(pieces) == text
    assert reader.finish(unless_said=FinishReason.STOP).text == text
    with pytest.raises(ModelInterrupted):
        reader.finish()


def test_the_model_usage_and_reason_that_came_last_count():
    reader = ReplyReader(MODEL, LOCATION)
    first, second = response_of(("a", False)), response_of(("b", False), finish_reason=VertexFinishReason.MAX_TOKENS)
    first.model_version = "gemini-001"
    first.usage_metadata.prompt_token_count = 3
    second.usage_metadata.prompt_token_count = 5
    second.usage_metadata.candidates_token_count = 2
    for response in (first, second, GenerateContentResponse()):
        reader.read(response)
    assert reader.finish() == Reply("ab", "gemini-001", LOCATION, FinishReason.MAX_TOKENS, Usage(5, 2))


def test_a_filter_that_strikes_with_text_keeps_the_text_back():
    with pytest.raises(ModelBlocked):
        ReplyReader(MODEL, LOCATION).read(response_of(("bad words", False), finish_reason=VertexFinishReason.SAFETY))
