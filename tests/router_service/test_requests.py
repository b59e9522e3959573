"""What callers may ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from llm_gateway.translation import read_request
from router_service.personas import DEFAULT_DIRECTORY, load_personas
from router_service.requests import checked_message, read_chat

TABLE = load_personas(DEFAULT_DIRECTORY)
USER, MODEL = llm_pb2.ROLE_USER, llm_pb2.ROLE_MODEL


@given(st.text())
def test_a_message_is_1_to_1000_characters_without_controls_after_trimming(text):
    trimmed = text.strip()
    allowed = 1 <= len(trimmed) <= 1000 and not any(
        (character < " " and character not in "\t\n\r") or character == "\x7f" for character in trimmed
    )
    try:
        assert checked_message(text) == trimmed
    except IonError:
        assert not allowed
    else:
        assert allowed


@pytest.mark.parametrize(("length", "reason"), [(1000, None), (1001, Reason.REASON_MESSAGE_TOO_LONG)])
def test_the_longest_message(length, reason):
    text = " " + "가" * length + "\n"
    if reason is None:
        assert len(checked_message(text)) == length
    else:
        with pytest.raises(IonError) as caught:
            checked_message(text)
        assert caught.value.reason == reason


def said(*texts: str, last: llm_pb2.Role.ValueType = USER) -> list[llm_pb2.Content]:
    """Turns, user and model by turns, the last by `last`."""
    roles = [USER if (len(texts) - number) % 2 else MODEL for number in range(len(texts))]
    return [llm_pb2.Content(role=role, text=text) for role, text in zip([*roles[:-1], last], texts, strict=True)]


def read(**fields):
    return read_chat(router_pb2.ChatRequest(**fields), TABLE)


def refused(**fields) -> tuple[Reason.ValueType, str]:
    with pytest.raises(IonError) as caught:
        read(**fields)
    (violation,) = caught.value.violations
    return caught.value.reason, violation.field


def test_of_a_whole_conversation_the_last_turn_is_routed():
    assert read(contents=said("who are you?", "Lua", " and now? \n")).message == "and now?"
    unspecified = [llm_pb2.Content(text="taken as the user's")]
    assert read(contents=unspecified).message == "taken as the user's"


@pytest.mark.parametrize("field", ["message", "session_id", "previous_persona"])
def test_contents_take_the_place_of_what_they_say_already(field):
    assert refused(contents=said("hello"), **{field: "Lua"}) == (Reason.REASON_INVALID_FIELD, field)


@pytest.mark.parametrize(
    ("contents", "field"),
    [
        (said(*["hi"] * 1001), "contents"),
        (said(*["x" * 80_000] * 5, "x"), "contents"),
        (said("x" * 100_001, "hi", "hi"), "contents[0].text"),
        (said("hi", "", "hi"), "contents[1].text"),
        (said("hi", "be\x07p", "hi"), "contents[1].text"),
        (said("hi", "hello", " \n"), "contents[2].text"),
        (said("hi", "hello", last=MODEL), "contents[1].role"),
        ([llm_pb2.Content(role=7, text="hi"), *said("hi")], "contents[0].role"),
    ],
)
def test_contents_that_are_none(contents, field):
    assert refused(contents=contents) == (Reason.REASON_INVALID_FIELD, field)


def test_the_longest_conversations():
    assert read(contents=said(*["hi"] * 1000)).message == "hi"
    assert len(read(contents=said(*["가" * 100_000] * 4)).message) == 100_000


PARAMETERS = [
    ({"temperature": -0.1}, "temperature"),
    ({"temperature": 2.1}, "temperature"),
    ({"temperature": float("nan")}, "temperature"),
    ({"top_p": 0}, "top_p"),
    ({"top_p": 1.1}, "top_p"),
    ({"max_output_tokens": -1}, "max_output_tokens"),
    ({"max_output_tokens": 65537}, "max_output_tokens"),
    ({"stop_sequences": ["a"] * 6}, "stop_sequences"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"stop_sequences": ["a" * 65]}, "stop_sequences"),
    ({"response_json_schema": "[]"}, "response_json_schema"),
    ({"response_json_schema": "{"}, "response_json_schema"),
    ({"response_json_schema": '{"a": "' + "x" * 8192 + '"}'}, "response_json_schema"),
    ({"response_json_schema": '{"a":' * 300 + "1" + "}" * 300}, "response_json_schema"),
]


@pytest.mark.parametrize(("parameters", "field"), PARAMETERS)
def test_parameters_out_of_bounds_are_named_as_the_llm_gateway_would_name_them(parameters, field):
    given = llm_pb2.GenerationParameters(**parameters)
    assert refused(message="hi", parameters=given) == (Reason.REASON_INVALID_FIELD, f"parameters.{field}")
    with pytest.raises(IonError) as caught:
        read_request(llm_pb2.GenerateRequest(prompt=llm_pb2.Prompt(contents=said("hi")), parameters=given), "m")
    assert caught.value.violations[0].field == f"parameters.{field}"


@pytest.mark.parametrize(
    "parameters",
    [
        {"temperature": 0, "top_p": 1, "max_output_tokens": 65536, "stop_sequences": ["a" * 64] * 5},
        {"temperature": 2, "top_p": 0.01, "response_json_schema": '{"type": "object"}', "minimal_thinking": True},
    ],
)
def test_parameters_at_their_bounds(parameters):
    read(message="hi", parameters=llm_pb2.GenerationParameters(**parameters))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"instructions": "x" * 32_001}, "instructions"),
        ({"instructions": "be\x00"}, "instructions"),
        ({"cache_control": llm_pb2.CacheControl(max_age_seconds=-1)}, "cache_control.max_age_seconds"),
        ({"user_id": "a\x00"}, "user_id"),
        ({"user_id": "u" * 129}, "user_id"),
        ({"session_id": "a\x1b"}, "session_id"),
        ({"session_id": "s" * 129}, "session_id"),
    ],
)
def test_other_fields_out_of_bounds(fields, field):
    assert refused(message="hi", **fields) == (Reason.REASON_INVALID_FIELD, field)


def test_the_longest_instructions_and_ids():
    read(message="hi", instructions="가" * 32_000, user_id="u" * 128, session_id="s" * 128)
