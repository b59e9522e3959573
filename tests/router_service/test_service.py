"""The router's servicer over TCP, with an LLM gateway that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.channel import open_channel
from chassis.errors import RULES, IonError
from chassis.server import new_server
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service.assembly import build
from router_service.service import MAX_BATCH, checked_message
from router_service.settings import RouterSettings


class Llm(llm_pb2_grpc.LlmGatewayServiceServicer):
    """Answers "reply", or fails for `reason`, or waits."""

    def __init__(self) -> None:
        self.reason: Reason.ValueType | None = None
        self.requests: list[llm_pb2.GenerateRequest] = []
        self.time_remaining: float | None = None
        self.wait = False

    async def Generate(self, request, context):
        self.requests.append(request)
        self.time_remaining = context.time_remaining()
        if self.wait:
            await asyncio.Event().wait()
        if self.reason is not None:
            raise IonError(self.reason)
        return llm_pb2.GenerateResponse(text="reply", generation=llm_pb2.Generation(model="m", attempts=1))


@pytest.fixture
def llm() -> Llm:
    return Llm()


@pytest.fixture
async def router(llm: Llm) -> AsyncIterator[router_pb2_grpc.PersonaRouterServiceStub]:
    below, server = new_server(), new_server()
    llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(llm, below)
    below_port = below.add_insecure_port("127.0.0.1:0")
    await below.start()
    async with open_channel(f"127.0.0.1:{below_port}") as llm_channel:
        build(RouterSettings(), llm_channel).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield router_pb2_grpc.PersonaRouterServiceStub(channel)
        await server.stop(None)
    await below.stop(None)


def chat(router, message: str = "배포가 또 깨졌어요. 답답해요.", **fields):
    return router.Chat(router_pb2.ChatRequest(message=message, **fields), timeout=10)


async def test_answer_carries_reading_choice_reply_and_timings(router, llm):
    answer = await chat(router, session_id="s", user_id="u")
    assert answer.content == "reply"
    assert (answer.routing.persona, answer.analysis.tone.primary) == ("Lua", "frustrated")
    assert (answer.generation.model, answer.session_id, answer.fallback) == ("m", "s", False)
    assert answer.timings.llm_micros > 0
    assert llm.requests[0].persona == "Lua"
    assert llm.requests[0].language == "ko"


@pytest.mark.parametrize("reason", [reason for reason in RULES if RULES[reason].code is not grpc.StatusCode.CANCELLED])
async def test_whatever_fails_below_is_an_apology_beside_the_scores(router, llm, reason):
    llm.reason = reason
    answer = await chat(router)
    assert answer.fallback
    assert (answer.routing.persona, answer.routing.confidence) == ("Nana", 0.0)
    assert answer.routing.resonance_key == "error-fallback-statement"
    assert {score.persona: score.score for score in answer.routing.scores}["Lua"] > 0.5
    assert "Lua was chosen" in answer.routing.reasoning
    assert (answer.failure.reason, answer.failure.retryable) == (reason, RULES[reason].retryable)
    assert not answer.HasField("generation")


async def test_apology_is_in_the_language_of_the_message(router, llm):
    llm.reason = Reason.REASON_MODEL_UNAVAILABLE
    assert "문제가 발생" in (await chat(router)).content
    assert "sorry" in (await chat(router, "the deploy broke again")).content


async def test_deadline_is_passed_on_less_a_margin_and_ends_in_an_apology(router, llm):
    llm.wait = True
    answer = await router.Chat(router_pb2.ChatRequest(message="hello"), timeout=0.5)
    assert answer.failure.reason == Reason.REASON_DEADLINE_EXCEEDED
    assert llm.time_remaining is not None
    assert 0.3 < llm.time_remaining < 0.47


async def test_without_a_deadline_the_setting_bounds_it(router, llm):
    await router.Chat(router_pb2.ChatRequest(message="hello"))
    assert llm.time_remaining is not None
    assert 29 < llm.time_remaining < 29.95


async def test_named_persona_in_any_case(router, llm):
    assert (await chat(router, persona="rIrI")).routing.persona == "Riri"
    assert llm.requests[0].persona == "Riri"
    response = await router.GetPersona(router_pb2.GetPersonaRequest(name="NANA"))
    assert (response.persona.name, response.persona.korean_name) == ("Nana", "나나")


async def test_route_of_a_key_says_what_fell_back(router):
    response = await router.Route(router_pb2.RouteRequest(resonance_key="happy-burst-expressive"))
    assert response.routing.resonance_key == "calm-burst-expressive"
    assert list(response.routing.defaulted_parts) == ["tone"]
    assert response.analysis.tone.confidence == 0.0
    assert response.analysis.intent.confidence == 1.0


@pytest.mark.parametrize("count", [0, MAX_BATCH + 1])
async def test_batch_bounds(router, count):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await router.BatchRoute(router_pb2.BatchRouteRequest(requests=[router_pb2.RouteRequest(message="a")] * count))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_large_batch_lets_other_calls_through(router):
    """The batch takes its turns: a call that comes after it is answered before it."""
    message = "왜 이게 안 되는지 모르겠어요. 답답해요. " * 20
    batch = router_pb2.BatchRouteRequest(requests=[router_pb2.RouteRequest(message=message)] * MAX_BATCH)
    order = []
    large = router.BatchRoute(batch)
    large.add_done_callback(lambda _: order.append("batch"))
    await router.Route(router_pb2.RouteRequest(message="warm"))
    for _ in range(5):
        await router.Route(router_pb2.RouteRequest(message="small"))
        order.append("small")
    assert len((await large).results) == MAX_BATCH
    assert order[0] == "small"


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
