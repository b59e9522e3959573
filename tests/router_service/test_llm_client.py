"""What the LLM gateway is asked, and that its two ways of asking are one."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from chassis.caller import Caller, enter
from chassis.deadline import Deadline
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2
from router_service.llm_client import LlmClient, generation_request
from router_service.personas import DEFAULT_DIRECTORY, load_personas
from tests.router_service.conftest import in_process
from tests.router_service.scripted_llm import ScriptedLlm

LUA = load_personas(DEFAULT_DIRECTORY).get("Lua")


def fields_of(message) -> list[tuple]:
    return [
        (
            field.name,
            field.number,
            field.type,
            field.is_repeated,
            field.has_presence,
            field.message_type and field.message_type.full_name,
        )
        for field in message.DESCRIPTOR.fields
    ]


@pytest.mark.parametrize(
    ("at_once", "streamed"),
    [
        (llm_pb2.GenerateRequest, llm_pb2.StreamGenerateRequest),
        (router_pb2.ChatRequest, router_pb2.ChatStreamRequest),
    ],
)
def test_requests_for_a_stream_are_the_others_on_the_wire(at_once, streamed):
    assert fields_of(streamed) == fields_of(at_once)


def test_a_persona_speaks_with_its_own_temperature_and_output_limit():
    request = generation_request(LUA, "Be Lua.", "hello", "en")
    assert request.parameters.temperature == pytest.approx(LUA.prompt.temperature)
    assert request.parameters.max_output_tokens == LUA.prompt.max_output_tokens


USAGE = llm_pb2.Usage(input_tokens=100, cached_input_tokens=90, output_tokens=20, thinking_tokens=3)


class Metered(ScriptedLlm):
    """Whose replies say what they cost."""

    def __init__(self, **generation) -> None:
        super().__init__()
        self.generation = llm_pb2.Generation(usage=USAGE, **generation)
        self.script = ["reply", self.generation]

    async def Generate(self, request, context):
        return llm_pb2.GenerateResponse(text="reply", generation=self.generation)


@pytest.mark.parametrize(
    ("generation", "tokens"),
    [({"attempts": 1}, 123), ({"attempts": 3}, 123), ({"cache": llm_pb2.CACHE_STATUS_HIT, "attempts": 0}, 0)],
)
async def test_what_a_model_made_for_the_call_is_noted_for_its_caller(generation, tokens):
    async with in_process(
        lambda server: llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(Metered(**generation), server)
    ) as channel:
        llm, request, meter = LlmClient(channel), llm_pb2.GenerateRequest(), enter(Caller("key:1"))
        await llm.generate(request, Deadline.after(10))
        assert meter.tokens == tokens
        async for _ in llm.stream(request, Deadline.after(10)):
            pass
        assert meter.tokens == 2 * tokens


async def test_a_stream_that_is_left_is_noted_for_what_came_of_it():
    async with in_process(
        lambda server: llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(Metered(attempts=1), server)
    ) as channel:
        meter = enter(Caller("key:1"))
        async with aclosing(LlmClient(channel).stream(llm_pb2.GenerateRequest(), Deadline.after(10))) as pieces:
            assert await anext(pieces) == "reply"
        assert meter.tokens == 3


def test_what_was_said_earlier_comes_before_the_message():
    earlier = [llm_pb2.Content(role=llm_pb2.ROLE_MODEL, text="earlier")]
    request = generation_request(LUA, "Be Lua.", "hello", "en", earlier=earlier, scope="mine")
    assert [content.text for content in request.prompt.contents] == ["earlier", "hello"]
    assert request.scope == "mine"


async def test_what_is_sent_for_two_messages_to_one_persona_begins_the_same(router, llm: ScriptedLlm):
    """Models cache the beginning of a prompt, byte for byte."""
    await router.Chat(router_pb2.ChatRequest(message="진짜 짜증나!! 왜 계속 안 돼!!", persona="Lua"))
    async for _ in router.ChatStream(router_pb2.ChatStreamRequest(message="what is the plan?", persona="Lua")):
        pass
    first, second = (request.prompt.system_instruction.encode() for request in llm.requests)
    own = LUA.prompt.instructions.strip().encode()
    assert first != second
    assert first[: len(own)] == second[: len(own)] == own
