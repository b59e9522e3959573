"""What the router tells of its choices, on its spans and in its counts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import grpc
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis import telemetry
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service.decisions import MAX_NAMED, OTHERS, Decisions
from router_service.personas import DEFAULT_DIRECTORY, load_personas
from router_service.reading import reading_of_key
from router_service.routing import choose
from tests.observed import Measured, measured, recorded_spans
from tests.router_service.conftest import hosting, in_process
from tests.router_service.scripted_llm import ScriptedLlm

FRUSTRATED = "진짜 짜증나!! 왜 계속 안 돼!!"
UNSAMPLED = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-00"),)
SAMPLED = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),)
ROUTER = "ion.router.v1.PersonaRouterService/"
OPINION = '{"tone": "playful", "intent": "request"}'

Stub = router_pb2_grpc.PersonaRouterServiceStub


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded_spans() as exporter:
        yield exporter


@pytest.fixture
def seen() -> Iterator[Measured]:
    with measured() as seen:
        yield seen


@pytest.fixture
async def router(spans: InMemorySpanExporter, seen: Measured, llm: ScriptedLlm) -> AsyncIterator[Stub]:
    async with hosting(llm, in_process) as stub:
        yield stub


@pytest.fixture
async def keeping_router(
    spans: InMemorySpanExporter, seen: Measured, llm: ScriptedLlm, database
) -> AsyncIterator[Stub]:
    async with hosting(llm, in_process, database) as stub:
        yield stub


async def chat(router: Stub, message: str = FRUSTRATED, **fields) -> router_pb2.ChatResponse:
    return await router.Chat(router_pb2.ChatRequest(message=message, **fields), timeout=60)


async def stream(router: Stub, message: str = FRUSTRATED, **fields) -> list[router_pb2.ChatStreamResponse]:
    request = router_pb2.ChatStreamRequest(message=message, **fields)
    return [event async for event in router.ChatStream(request, timeout=60)]


def served(spans: InMemorySpanExporter, method: str) -> ReadableSpan:
    """The newest such call of the router."""
    return [span for span in spans.get_finished_spans() if span.name == f"{ROUTER}{method}"][-1]


def told(spans: InMemorySpanExporter, method: str = "Chat") -> dict:
    return dict(served(spans, method).attributes or {})


async def test_the_span_of_a_chat_tells_how_it_was_decided(router, spans):
    routing = (await chat(router)).routing
    attributes = told(spans)
    assert (
        attributes
        | {
            telemetry.RESONANCE_KEY: "frustrated-burst-expressive",
            telemetry.TONE: "frustrated",
            telemetry.PACE: "burst",
            telemetry.INTENT: "expressive",
            telemetry.READ_BY: "reader",
            telemetry.PERSONA: "Lua",
            telemetry.SECONDARY_PERSONA: routing.secondary_persona,
            telemetry.ROUTING_SCORE: routing.confidence,
            telemetry.ROUTING_MARGIN: routing.margin,
            telemetry.ROUTING_PINNED: False,
        }
        == attributes
    )
    personas, scores = attributes[telemetry.ROUTING_PERSONAS], attributes[telemetry.ROUTING_SCORES]
    assert personas[:2] == ("Lua", routing.secondary_persona)
    assert dict(zip(personas, scores, strict=True)) == {score.persona: score.score for score in routing.scores}
    assert telemetry.ROUTING_DECIDED_BY not in attributes
    assert telemetry.FALLBACK not in attributes
    assert telemetry.GEN_AI_CONVERSATION not in attributes
    below = [span for span in spans.get_finished_spans() if span is not served(spans, "Chat")]
    assert not [span.name for span in below if telemetry.TONE in (span.attributes or {})]


async def test_a_stream_and_a_route_tell_the_same(router, spans):
    await chat(router)
    await stream(router)
    await router.Route(router_pb2.RouteRequest(message=FRUSTRATED))
    of_chat = decision(told(spans))
    assert len(of_chat) == 12
    assert decision(told(spans, "ChatStream")) == decision(told(spans, "Route")) == of_chat


def decision(attributes: dict) -> dict:
    return {key: value for key, value in attributes.items() if key.startswith("ion.") and "stream" not in key}


async def test_a_key_and_what_decides_between_near_equals(router, spans):
    await router.Route(router_pb2.RouteRequest(resonance_key="curious-medium-inquiry", previous_persona="Elro"))
    assert told(spans, "Route")[telemetry.READ_BY] == "key"
    answer = await chat(router, "I work in a bakery.", previous_persona="Elro")
    assert (answer.routing.persona, told(spans)[telemetry.ROUTING_DECIDED_BY]) == (
        "Elro",
        ("topic", "session"),
    )


async def test_a_pinned_persona_is_told_beside_the_best(router, spans):
    await chat(router, persona="Riri")
    attributes = told(spans)
    assert (attributes[telemetry.PERSONA], attributes[telemetry.ROUTING_PINNED]) == ("Riri", True)
    assert attributes[telemetry.ROUTING_PERSONAS][0] == "Lua"


async def test_what_is_not_sampled_is_counted_all_the_same(seen, llm):
    with recorded_spans("parentbased_always_on") as exporter:
        async with hosting(llm, in_process) as router:
            request = router_pb2.ChatRequest(message=FRUSTRATED)
            await router.Chat(request, metadata=UNSAMPLED)
            assert not exporter.get_finished_spans()
            await router.Chat(request, metadata=SAMPLED)
            assert told(exporter)[telemetry.PERSONA] == "Lua"
    assert seen.value(telemetry.ROUTING_DECISIONS) == 2


async def test_decisions_are_counted_by_persona_tone_and_intent(router, seen, spans):
    await chat(router)
    await stream(router)
    await router.Route(router_pb2.RouteRequest(resonance_key="urgent-burst-request"))
    requests = [router_pb2.RouteRequest(message=FRUSTRATED)] * 40 + [router_pb2.RouteRequest()]
    await router.BatchRoute(router_pb2.BatchRouteRequest(requests=requests))
    lua = {telemetry.PERSONA: "Lua", telemetry.TONE: "frustrated", telemetry.INTENT: "expressive"}
    assert seen.value(telemetry.ROUTING_DECISIONS, lua) == 42
    assert seen.value(telemetry.ROUTING_DECISIONS, {telemetry.TONE: "urgent", telemetry.INTENT: "request"}) == 1
    assert seen.value(telemetry.ROUTING_DECISIONS) == 43
    assert not decision(told(spans, "BatchRoute"))


def test_personas_beyond_the_first_hundred_are_others():
    decisions, table = Decisions(), load_personas(DEFAULT_DIRECTORY)
    routing = choose(reading_of_key("urgent-burst-request").signals, table)
    for number in (*range(MAX_NAMED + 5), 0):
        decisions.count(replace(routing, best=replace(routing.best, persona=f"p{number}")))
    counts = {attributes[telemetry.PERSONA]: number for number, attributes in decisions.counted()}
    assert (len(counts), counts[OTHERS], counts["p0"]) == (MAX_NAMED + 1, 5, 2)


async def test_apologies_are_told_and_counted_by_why(router, spans, seen, llm):
    llm.reason, llm.script = Reason.REASON_MODEL_UNAVAILABLE, [Reason.REASON_MODEL_BLOCKED]
    await chat(router)
    await stream(router)
    assert told(spans)[telemetry.FALLBACK] is told(spans, "ChatStream")[telemetry.FALLBACK] is True
    for reason in ("MODEL_UNAVAILABLE", "MODEL_BLOCKED"):
        assert seen.value(telemetry.CHAT_FALLBACKS, {telemetry.ERROR_TYPE: reason}) == 1


async def test_what_is_refused_or_breaks_off_is_no_apology(router, spans, seen, llm):
    llm.reason, llm.script = Reason.REASON_MODEL_UNAVAILABLE, ["re", Reason.REASON_MODEL_UNAVAILABLE]
    for failing in (chat(router, no_apology=True), stream(router)):
        with pytest.raises(grpc.RpcError):
            await failing
    assert telemetry.FALLBACK not in told(spans) | told(spans, "ChatStream")
    assert seen.value(telemetry.CHAT_FALLBACKS) == 0


async def test_what_became_of_the_turn(keeping_router, spans, llm):
    await chat(keeping_router, session_id="s")
    assert told(spans)[telemetry.HISTORY] == "stored"
    await stream(keeping_router, session_id="s")
    assert told(spans, "ChatStream")[telemetry.HISTORY] == "stored"
    llm.reason = Reason.REASON_MODEL_UNAVAILABLE
    await chat(keeping_router, session_id="s")
    assert told(spans)[telemetry.HISTORY] == "skipped"
    await chat(keeping_router)
    assert telemetry.HISTORY not in told(spans)


async def test_without_a_database_the_turn_is_unavailable(router, spans):
    await chat(router, session_id="s")
    assert told(spans)[telemetry.HISTORY] == "unavailable"


async def test_all_turns_of_a_session_share_a_digest(keeping_router, spans):
    asked = [("s", "u"), ("s", "u"), ("s", "v"), ("t", "u")]
    digests = []
    for session_id, user_id in asked:
        await chat(keeping_router, session_id=session_id, user_id=user_id)
        digests.append(told(spans)[telemetry.GEN_AI_CONVERSATION])
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert all(re.fullmatch(r"[0-9a-f]{16}", digest) for digest in digests)


async def test_questions_to_the_database_are_below_the_call_and_hold_nothing_of_it(keeping_router, spans, llm):
    llm.text = "the secret reply"
    await chat(keeping_router, "a secret message", session_id="secret-session", user_id="secret-user")
    finished = spans.get_finished_spans()
    chat_id = served(spans, "Chat").context.span_id
    below = [span.name for span in finished if span.parent and span.parent.span_id == chat_id]
    assert below == ["SELECT session turns", "ion.llm.v1.LlmGatewayService/Generate", "INSERT turn"]
    assert "secret" not in "".join(span.to_json() for span in finished)


async def test_a_second_opinion_is_a_call_below_the_same_span(spans, llm):
    llm.text = OPINION
    async with hosting(llm, in_process, second_opinion=True, second_opinion_below=1.0) as router:
        await router.Route(router_pb2.RouteRequest(message=FRUSTRATED))
    route = served(spans, "Route")
    asked = next(span for span in spans.get_finished_spans() if span.parent == route.context)
    assert asked.name == "ion.llm.v1.LlmGatewayService/Generate"
    assert told(spans, "Route")[telemetry.READ_BY] == "model"
    assert told(spans, "Route")[telemetry.TONE] == "playful"
