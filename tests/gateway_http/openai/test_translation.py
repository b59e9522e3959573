"""A chat completion asked for becomes the router's request, and the router's refusals speak of the completion."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidField, IonError
from gateway_http.openai.errors import BadParameter
from gateway_http.openai.schemas import ChatCompletionRequest, JsonSchema, ResponseFormat
from gateway_http.openai.translation import chat_request, refused, stream_request
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2

HI = {"role": "user", "content": "hi"}


def asked(*messages: dict[str, Any], model: str = "ion-auto", **members: Any) -> ChatCompletionRequest:
    return msgspec.convert({"model": model, "messages": messages or [HI], **members}, ChatCompletionRequest)


def translated(*messages: dict[str, Any], **members: Any) -> Any:
    return chat_request(asked(*messages, **members), None)


def refusal(*messages: dict[str, Any], **members: Any) -> BadParameter:
    with pytest.raises(BadParameter) as caught:
        translated(*messages, **members)
    return caught.value


def test_instructions_are_apart_from_turns_and_in_order():
    request = translated(
        {"role": "system", "content": "One."},
        {"role": "user", "content": "a"},
        {"role": "developer", "content": [{"type": "text", "text": "Two"}, {"type": "text", "text": "."}]},
        {"role": "assistant", "content": "b"},
        {"role": "system", "content": ""},
        {"role": "user", "content": [{"type": "text", "text": "c "}, {"type": "text", "text": "d"}]},
    )
    assert request.instructions == "One.\n\nTwo."
    assert [(content.role, content.text) for content in request.contents] == [
        (llm_pb2.ROLE_USER, "a"),
        (llm_pb2.ROLE_MODEL, "b"),
        (llm_pb2.ROLE_USER, "c d"),
    ]
    assert request.no_apology
    assert not request.message


_TEXT = st.text(min_size=1, max_size=20).filter(str.strip)
_MESSAGE = st.builds(
    lambda role, texts: {
        "role": role,
        "content": texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts],
    },
    st.sampled_from(["system", "developer", "user", "assistant"]),
    st.lists(_TEXT, min_size=1, max_size=3),
)


def said(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


@given(st.lists(_MESSAGE, max_size=8), _TEXT)
def test_nothing_is_lost_added_or_moved(messages, last):
    messages = [*messages, {"role": "user", "content": last}]
    request = translated(*messages)
    roles = {"user": llm_pb2.ROLE_USER, "assistant": llm_pb2.ROLE_MODEL}
    turns = [(roles[item["role"]], said(item)) for item in messages if item["role"] in roles]
    assert [(content.role, content.text) for content in request.contents] == turns
    assert request.instructions == "\n\n".join(said(item) for item in messages if item["role"] not in roles)


@given(st.lists(_MESSAGE, max_size=8), st.data())
def test_a_refusal_names_the_message_that_the_turn_came_from(messages, data):
    messages = [*messages, HI]
    turns = [index for index, message in enumerate(messages) if message["role"] in ("user", "assistant")]
    turn = data.draw(st.integers(0, len(turns) - 1))
    error = refused(asked(*messages), InvalidField(f"contents[{turn}].text", "must be short"))
    assert isinstance(error, BadParameter)
    assert error.param == f"messages[{turns[turn]}].content"
    assert error.message == f"`messages[{turns[turn]}].content` must be short."


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("contents", "messages"),
        ("instructions", "messages"),
        ("user_id", "user"),
        ("parameters.temperature", "temperature"),
        ("parameters.top_p", "top_p"),
        ("parameters.max_output_tokens", "max_completion_tokens"),
        ("parameters.stop_sequences", "stop"),
        ("parameters.response_json_schema", "response_format.json_schema.schema"),
    ],
)
def test_a_refusal_names_the_member_that_the_field_came_from(field, param):
    error = refused(asked(), InvalidField(field, "is bad"))
    assert isinstance(error, BadParameter)
    assert (error.param, error.code) == (param, "invalid_value")


def test_a_persona_that_is_not_there_is_a_model_that_is_not_there():
    error = refused(asked(), IonError(Reason.REASON_PERSONA_NOT_FOUND, "It must be one of Elro, Lua."))
    assert isinstance(error, IonError)
    assert "model" in error.message
    assert "Elro" not in error.message


@pytest.mark.parametrize("error", [InvalidField("cache_control", "x"), IonError(Reason.REASON_OVERLOADED)])
def test_other_failures_stay_as_they_are(error):
    assert refused(asked(), error) is error


def test_parameters_that_are_not_given_are_left_to_the_persona():
    assert not translated().parameters.ListFields()


def test_parameters():
    request = translated(
        temperature=0.0,
        top_p=0.5,
        max_completion_tokens=9,
        stop=["a", "b"],
        reasoning_effort="minimal",
        user="u1",
        safety_identifier="u2",
    )
    given_parameters = request.parameters
    assert given_parameters.HasField("temperature")
    assert given_parameters.temperature == 0
    assert given_parameters.top_p == 0.5
    assert given_parameters.max_output_tokens == 9
    assert list(given_parameters.stop_sequences) == ["a", "b"]
    assert given_parameters.minimal_thinking
    assert request.user_id == "u1"


def test_a_single_stop_and_the_older_limit_and_the_newer_name_of_the_user():
    request = translated(stop="END", max_tokens=7, safety_identifier="u2")
    assert list(request.parameters.stop_sequences) == ["END"]
    assert request.parameters.max_output_tokens == 7
    assert request.user_id == "u2"


def test_two_limits_that_differ():
    assert refusal(max_tokens=7, max_completion_tokens=8).param == "max_tokens"
    assert translated(max_tokens=7, max_completion_tokens=7).parameters.max_output_tokens == 7


@pytest.mark.parametrize(("model", "persona"), [("ion-auto", ""), ("ion-lua", "lua"), ("ion-new-one", "new-one")])
def test_models_stand_for_personas(model, persona):
    assert translated(model=model).persona == persona


@pytest.mark.parametrize("model", ["", "ion-", "ion", "gpt-5", "lua", "Ion-lua", "ion-Lua", "ion- lua"])
def test_names_that_are_no_models(model):
    with pytest.raises(IonError) as caught:
        translated(model=model)
    assert caught.value.reason == Reason.REASON_PERSONA_NOT_FOUND


def test_the_cache_control_goes_on():
    request = chat_request(asked(), llm_pb2.CacheControl(bypass=True))
    assert request.cache_control.bypass
    assert not chat_request(asked(), None).HasField("cache_control")


def test_a_schema_keeps_its_own_description_before_that_beside_it():
    schema = {"type": "object", "properties": {"이름": {"type": "string"}}}

    def sent(**members: Any) -> Any:
        wanted = {"type": "json_schema", "json_schema": {"name": "person", "strict": True} | members}
        return json.loads(translated(response_format=wanted).parameters.response_json_schema)

    assert sent(schema=schema) == schema
    assert sent(schema=schema, description="Who") == schema | {"description": "Who"}
    assert sent(schema=schema | {"description": "own"}, description="Who") == schema | {"description": "own"}


def test_a_schema_that_cannot_be_sent_on():
    deep: dict[str, Any] = {}
    for _ in range(9999):
        deep = {"not": deep}
    request = asked()
    request.response_format = ResponseFormat("json_schema", JsonSchema("a", deep))
    with pytest.raises(BadParameter) as caught:
        chat_request(request, None)
    assert caught.value.param == "response_format.json_schema.schema"
    assert refusal(response_format={"type": "json_schema"}).param == "response_format.json_schema"
    assert not translated(response_format={"type": "text"}).parameters.response_json_schema


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([HI, {"role": "assistant", "content": "hello"}], "messages[1].role"),
        ([{"role": "system", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "system"}, HI], "messages[0].content"),
        ([{"role": "user", "content": " \n"}], "messages[0].content"),
        ([{"role": "user", "content": []}], "messages[0].content"),
        ([{"role": "user", "content": ""}, HI], "messages[0].content"),
    ],
)
def test_conversations_that_cannot_be_answered(messages, param):
    assert refusal(*messages).param == param


@pytest.mark.parametrize("content", [None, "", "  "])
def test_an_answer_without_text_is_left_out(content):
    request = translated(HI, {"role": "assistant", "content": content}, HI)
    assert [item.text for item in request.contents] == ["hi", "hi"]


def test_stream_options_want_a_stream():
    assert refusal(stream_options={"include_usage": True}).param == "stream_options"
    translated(stream=True, stream_options={"include_usage": True})


def test_a_stream_is_asked_for_with_the_same_fields():
    request = translated(temperature=0.5, user="u", model="ion-lua")
    streamed = stream_request(request)
    assert streamed.SerializeToString(deterministic=True) == request.SerializeToString(deterministic=True)
    assert (streamed.persona, streamed.no_apology) == ("lua", True)
