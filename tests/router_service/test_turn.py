"""What the model is asked, and what of a turn is kept."""

from __future__ import annotations

import pytest

from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from router_service.analysis import Reader
from router_service.personas import DEFAULT_DIRECTORY, load_personas
from router_service.reading import reading_of_message
from router_service.requests import read_chat
from router_service.turn import prompt_of

TABLE = load_personas(DEFAULT_DIRECTORY)
READER = Reader.load()
LUA = TABLE.get("Lua")


def prompt(earlier=(), scope="", **fields) -> llm_pb2.GenerateRequest:
    asked = read_chat(router_pb2.ChatRequest(**fields), TABLE)
    reading = reading_of_message(READER.read(asked.message), asked.message)
    return prompt_of(asked, LUA, reading, earlier, scope)


def test_parameters_of_the_caller_win_field_by_field():
    own = LUA.prompt
    assert prompt(message="hi").parameters == llm_pb2.GenerationParameters(
        temperature=own.temperature, max_output_tokens=own.max_output_tokens
    )
    some = prompt(
        message="hi", parameters=llm_pb2.GenerationParameters(temperature=0, stop_sequences=["END"])
    ).parameters
    assert some == llm_pb2.GenerationParameters(
        temperature=0, max_output_tokens=own.max_output_tokens, stop_sequences=["END"]
    )
    given = llm_pb2.GenerationParameters(
        top_p=0.5, max_output_tokens=7, response_json_schema="{}", minimal_thinking=True
    )
    all_others = prompt(message="hi", parameters=given).parameters
    assert all_others.temperature == pytest.approx(own.temperature)
    all_others.ClearField("temperature")
    assert all_others == given


def test_what_is_wanted_of_the_cache_is_passed_on():
    assert not prompt(message="hi").HasField("cache_control")
    wanted = llm_pb2.CacheControl(no_store=True, max_age_seconds=0)
    assert prompt(message="hi", cache_control=wanted).cache_control == wanted


def test_a_message_is_trimmed_and_a_turn_of_the_callers_own_is_as_it_came():
    assert [content.text for content in prompt(message=" hi\n").prompt.contents] == ["hi"]
    own = llm_pb2.Content(role=llm_pb2.ROLE_USER, text="    indented = True\n")
    assert list(prompt(contents=[own]).prompt.contents) == [own]


def test_nothing_that_is_said_becomes_an_instruction():
    asked = prompt(
        earlier=[llm_pb2.Content(role=llm_pb2.ROLE_MODEL, text="EARLIER")], scope="mine", message="MESSAGE {x} %s"
    )
    assert [content.text for content in asked.prompt.contents] == ["EARLIER", "MESSAGE {x} %s"]
    assert not {"EARLIER", "MESSAGE"} & set(asked.prompt.system_instruction.split())
    assert asked.scope == "mine"


def test_instructions_of_the_application_are_part_of_the_system_instruction():
    assert "Be brief." in prompt(message="hi", instructions="Be brief.").prompt.system_instruction
