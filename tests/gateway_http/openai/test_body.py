"""Bodies are read strictly: what is not supported is refused by its name, and not left out in silence."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat import completion_create_params
from openai.types.chat.chat_completion_assistant_message_param import ChatCompletionAssistantMessageParam

from gateway_http.openai.body import StrictBody, read
from gateway_http.openai.errors import BadParameter
from gateway_http.openai.schemas import ChatCompletionRequest, Message

HI = {"role": "user", "content": "hi"}


def body(**members: Any) -> bytes:
    return json.dumps({"model": "ion-auto", "messages": [HI]} | members).encode()


def refusal(content: bytes) -> BadParameter:
    with pytest.raises(BadParameter) as caught:
        read(content)
    return caught.value


UNSUPPORTED = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("tool_choice", "auto"),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}),
    ("functions", [{"name": "f"}]),
    ("function_call", "auto"),
    ("n", 2),
    ("n", 0),
    ("logprobs", True),
    ("top_logprobs", 3),
    ("logit_bias", {"50256": -100}),
    ("frequency_penalty", 0.1),
    ("presence_penalty", -2),
    ("seed", 7),
    ("audio", {"voice": "alloy", "format": "mp3"}),
    ("prediction", {"type": "content", "content": "x"}),
    ("web_search_options", {}),
    ("moderation", {"model": "omni-moderation-latest"}),
    ("prompt_cache_options", {"mode": "explicit"}),
    ("prompt_cache_retention", "24h"),
    ("reasoning_effort", "high"),
    ("service_tier", "priority"),
    ("store", True),
    ("verbosity", "low"),
]


@pytest.mark.parametrize(("name", "value"), UNSUPPORTED)
def test_what_is_not_supported_is_refused_by_name(name, value):
    error = refusal(body(**{name: value}))
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert f"`{name}`" in error.message


@pytest.mark.parametrize(
    ("members", "param"),
    [
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"modalities": ["audio"]}, "modalities[0]"),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"messages": [HI | {"name": "Bob"}]}, "messages[0].name"),
        ({"messages": [{"role": "tool", "content": "4", "tool_call_id": "c"}, HI]}, "messages[0].role"),
        ({"messages": [{"role": "function", "content": "4"}, HI]}, "messages[0].role"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}, HI]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a"}}, HI]}, "messages[0].audio"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_audio"}]}]},
            "messages[0].content[1].type",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]}, "messages[0].content[0].type"),
    ],
)
def test_what_is_not_supported_inside_a_member_is_refused_by_its_path(members, param):
    error = refusal(body(**members))
    assert (error.param, error.code) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"colour": "red"}, "colour", "unknown_parameter"),
        ({"stream_options": {"colour": 1}}, "stream_options.colour", "unknown_parameter"),
        ({"messages": [HI | {"colour": 1}]}, "messages[0].colour", "unknown_parameter"),
        ({"x" * 500: 1}, "x" * 64, "unknown_parameter"),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": "x" * 100_001}]}, "messages[0].content", "invalid_value"),
        ({"model": None}, "model", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"temperature": -0.1}, "temperature", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_type"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_p": 1.1}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": 65_537}, "max_completion_tokens", "invalid_value"),
        ({"stop": ""}, "stop", "invalid_value"),
        ({"stop": "x" * 65}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"stop": list("abcdef")}, "stop", "invalid_value"),
        ({"user": "u" * 129}, "user", "invalid_value"),
        ({"metadata": {"a": 1}}, "metadata[...]", "invalid_type"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
            "response_format.json_schema.name",
            "invalid_value",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
            "missing_required_parameter",
        ),
    ],
)
def test_what_is_unknown_missing_or_out_of_bounds_is_refused_by_its_path(members, param, code):
    error = refusal(body(**members))
    assert (error.param, error.code) == (param, code)
    assert param in error.message


@pytest.mark.parametrize("content", [b"[]", b"null", b'"hi"', b"5"])
def test_a_body_that_is_no_object(content):
    error = refusal(content)
    assert (error.param, error.code) == (None, "invalid_type")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{bad",
        body()[:-1],
        b'{"model": "\xff"}',
        b'{"model": "\\ud800"}',
        body()[:-1] + b', "tools": ' + b"[" * 99999,
    ],
)
def test_a_body_that_is_no_json(content):
    error = refusal(content)
    assert error.param in (None, "tools")
    assert error.code in ("invalid_json", "unsupported_parameter")


HARMLESS = {
    "n": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0.0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "tools": [],
    "functions": [],
    "tool_choice": "none",
    "function_call": "none",
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "store": False,
    "metadata": {"run": "1"},
    "service_tier": "auto",
    "verbosity": "medium",
    "prompt_cache_key": "k",
    "stop": [],
    "response_format": {"type": "text"},
}


@pytest.mark.parametrize(("name", "value"), HARMLESS.items())
def test_what_changes_nothing_is_taken(name, value):
    read(body(**{name: value}))


@pytest.mark.parametrize("name", sorted(set(ChatCompletionRequest.__struct_fields__) - {"model", "messages"}))
def test_null_is_as_good_as_nothing(name):
    assert read(body(**{name: None})) == read(body())


def test_an_answer_may_be_sent_back_as_the_client_has_it():
    answer = {"content": "hello", "refusal": None, "role": "assistant", "annotations": [], "audio": None}
    message = answer | {"function_call": None, "tool_calls": None}
    assert read(body(messages=[HI, message, HI])).messages[1].content == "hello"


def test_every_member_that_the_client_can_send_is_known_by_name():
    sent = get_type_hints(completion_create_params.CompletionCreateParamsBase) | {"stream": bool}
    assert set(sent) <= set(ChatCompletionRequest.__struct_fields__)
    assert set(get_type_hints(ChatCompletionAssistantMessageParam)) <= set(Message.__struct_fields__)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(st.sampled_from(ChatCompletionRequest.__struct_fields__) | st.text(max_size=9), _JSON, max_size=5)
)
def test_any_object_is_read_or_refused(members):
    with suppress(BadParameter):
        assert read(body(**members)).model


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(content):
    assert refusal(content).code


def test_the_document_says_what_is_taken():
    schema = StrictBody.create_openapi_schema().to_schema()
    text = msgspec.json.encode(schema).decode()
    assert "$ref" not in text
    assert schema["additionalProperties"] is False
    assert schema["properties"]["messages"]["items"]["additionalProperties"] is False
    penalty = schema["properties"]["presence_penalty"]["anyOf"][0]
    assert (penalty["minimum"], penalty["maximum"]) == (0, 0)
