"""The router's servicer over TCP, with an LLM gateway that does as it is told."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from itertools import pairwise

import grpc
import grpc.aio
import pytest

from chassis.channel import open_channel
from chassis.errors import RULES, IonError, from_rpc
from chassis.local_channel import LocalServer
from chassis.server import new_server
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2_grpc
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service.analysis import Reader, Tone
from router_service.assembly import load_reader
from router_service.persona_store import PersonaStore
from router_service.personas import DEFAULT_DIRECTORY, PersonaTable
from tests.router_service.scripted_llm import ScriptedLlm
from tests.router_service.servicers import servicer_of

FRUSTRATED = "진짜 짜증나!! 왜 계속 안 돼!!"


def chat(router, message: str = FRUSTRATED, **fields):
    return router.Chat(router_pb2.ChatRequest(message=message, **fields), timeout=10)


async def test_answer_carries_reading_choice_reply_and_timings(router, llm):
    answer = await chat(router, session_id="s", user_id="u")
    assert answer.content == "reply"
    assert (answer.routing.persona, answer.analysis.tone.primary) == ("Lua", "frustrated")
    assert (answer.generation.model, answer.session_id, answer.fallback) == ("m", "s", False)
    assert answer.timings.llm_micros > 0
    assert llm.requests[0].persona == "Lua"
    assert llm.requests[0].language == "ko"


NO_APOLOGY = (Reason.REASON_CANCELLED, Reason.REASON_OVERLOADED)


@pytest.mark.parametrize("reason", [reason for reason in RULES if reason not in NO_APOLOGY])
async def test_whatever_fails_below_is_an_apology_beside_the_scores(router, llm, reason):
    llm.reason = reason
    answer = await chat(router)
    assert answer.fallback
    assert (answer.routing.persona, answer.routing.confidence) == ("Nana", 0.0)
    assert answer.routing.resonance_key == "error-fallback-statement"
    assert {score.persona: score.score for score in answer.routing.scores}["Lua"] > 0.5
    assert answer.routing.reasoning.endswith("지만 모델이 답하지 못했어요.")
    assert (answer.failure.reason, answer.failure.retryable) == (reason, RULES[reason].retryable)
    assert not answer.HasField("generation")


async def test_too_much_work_is_no_apology_but_an_error_to_come_again(router, llm):
    llm.reason = Reason.REASON_OVERLOADED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await chat(router)
    error = from_rpc(raised.value, unreachable=Reason.REASON_UNSPECIFIED)
    assert (error.reason_name, raised.value.code()) == ("OVERLOADED", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert error.retry_after_seconds


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
    assert response.analysis.rhythm.confidence == 1.0
    assert response.analysis.read_by == router_pb2.READ_BY_UNSPECIFIED
    assert not response.analysis.evidence
    no_pace = await router.Route(router_pb2.RouteRequest(resonance_key="calm-fast-inquiry"))
    assert (no_pace.analysis.rhythm.pace, no_pace.analysis.rhythm.confidence) == ("medium", 0.0)


async def test_route_gives_all_that_was_read_and_what_each_part_contributed(router):
    response = await router.Route(router_pb2.RouteRequest(message=FRUSTRATED))
    tone, rhythm = response.analysis.tone, response.analysis.rhythm
    assert (tone.primary, tone.abstained) == ("frustrated", False)
    assert 0.5 <= rhythm.confidence <= 1
    assert response.analysis.read_by == router_pb2.READ_BY_READER
    ranked = sorted(response.routing.scores, key=lambda score: score.score + score.tie_breaker, reverse=True)
    first, second = ranked[:2]
    assert response.routing.persona == first.persona == "Lua"
    for score in ranked:
        assert score.tone + score.pace + score.intent == pytest.approx(score.score)
    totals = [score.score + score.tie_breaker + score.session_bonus for score in (first, second)]
    assert response.routing.margin == pytest.approx(totals[0] - totals[1])
    assert re.fullmatch(r"말투는 답답함\(0.50\), .+ 루아가 .+\.", response.routing.reasoning)


async def test_unsure_readings_reach_the_wire_as_they_are(router):
    """Whatever the reader says of a message, its probabilities come along."""
    reader = Reader.load()
    for message in ("흠 글쎄", "ok maybe, sales chart and the code", "급한데 불안하고 짜증나"):
        analysis, read = (await router.Route(router_pb2.RouteRequest(message=message))).analysis, reader.read(message)
        tone = read.tone
        assert (analysis.tone.secondary, analysis.tone.secondary_confidence) == (
            tone.secondary,
            tone.secondary_confidence,
        )
        assert analysis.tone.abstained == tone.abstained
        assert tuple(zip(analysis.topics, analysis.topic_probabilities, strict=True)) == read.topics
        assert analysis.rhythm.confidence == read.rhythm.confidence


@pytest.fixture
def unsure_reader(monkeypatch):
    read = Reader.read
    unsure = Tone("calm", 0.1, "anxious", 0.2, abstained=True)
    monkeypatch.setattr(Reader, "read", lambda *arguments: replace(read(*arguments), tone=unsure))


async def test_a_reader_that_abstains_says_so_and_shows_no_evidence(unsure_reader, router):
    response = await router.Route(router_pb2.RouteRequest(message=FRUSTRATED))
    assert response.analysis.tone == router_pb2.Tone(
        primary="calm", confidence=0.1, secondary="anxious", secondary_confidence=0.2, abstained=True
    )
    assert not response.analysis.evidence
    assert response.routing.reasoning.startswith("말투는 뚜렷하지 않아 차분함")


async def test_evidence_is_words_of_the_message_strongest_first(router):
    analysis = (await router.Route(router_pb2.RouteRequest(message=FRUSTRATED))).analysis
    assert 1 <= len(analysis.evidence) <= 3
    assert all(word.text in FRUSTRATED and word.weight > 0 for word in analysis.evidence)
    assert all(one.weight >= other.weight for one, other in pairwise(analysis.evidence))


async def test_an_answer_does_not_wait_for_evidence(router):
    assert not (await chat(router)).analysis.evidence


async def test_whoever_answered_last_stays_between_equals_and_never_against_a_clear_tone(router):
    for previous in ("Elro", "riri"):
        request = router_pb2.RouteRequest(resonance_key="calm-medium-statement", previous_persona=previous)
        routing = (await router.Route(request)).routing
        assert routing.persona == previous.capitalize()
        assert {score.persona: score.session_bonus for score in routing.scores}[routing.persona] == 0.03
        assert sum(score.session_bonus for score in routing.scores) == 0.03
        assert routing.margin == pytest.approx(0.03)
        assert "answered last" in routing.reasoning
    clear = (await router.Route(router_pb2.RouteRequest(message=FRUSTRATED, previous_persona="Nana"))).routing
    assert clear.persona == "Lua"
    assert (await chat(router, previous_persona="Nana")).routing.scores == clear.scores


async def test_an_unknown_previous_persona_is_not_found_and_named(router):
    calls = (
        router.Route(router_pb2.RouteRequest(message="hi", previous_persona="Bob")),
        chat(router, previous_persona="Bob"),
    )
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        error = from_rpc(caught.value, unreachable=Reason.REASON_INTERNAL)
        assert error.reason == Reason.REASON_PERSONA_NOT_FOUND
        assert [violation.field for violation in error.violations] == ["previous_persona"]
    batch = [router_pb2.RouteRequest(message="hi", previous_persona="Bob"), router_pb2.RouteRequest(message="hi")]
    results = (await router.BatchRoute(router_pb2.BatchRouteRequest(requests=batch))).results
    assert [result.WhichOneof("outcome") for result in results] == ["failure", "response"]


def others(table: PersonaTable) -> PersonaTable:
    """The same personas under other names."""
    renamed = [persona.model_copy(update={"name": f"Other{persona.name}"}) for persona in table.personas]
    return PersonaTable(tuple(renamed))


async def test_a_call_keeps_the_personas_it_began_with():
    store = PersonaStore(DEFAULT_DIRECTORY)
    servicer = servicer_of(store=store)
    names = list(store.table.names)
    batch = router_pb2.BatchRouteRequest(requests=[router_pb2.RouteRequest(message="hello")] * 100)
    call = asyncio.create_task(servicer.BatchRoute(batch, None))
    await asyncio.sleep(0)  # it has begun, and is between two messages
    store.table = others(store.table)
    assert [score.persona for score in (await call).results[-1].response.routing.scores] == names


async def test_an_apology_is_by_the_personas_the_call_began_with():
    store = PersonaStore(DEFAULT_DIRECTORY)

    class Failing(ScriptedLlm):
        async def Generate(self, request, context):
            store.table = others(store.table)
            raise IonError(Reason.REASON_INTERNAL)

    server = new_server()
    llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(Failing(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        servicer = servicer_of(channel, store=store)
        local = LocalServer([])
        router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(servicer, local)
        answer = await chat(router_pb2_grpc.PersonaRouterServiceStub(local.channel()))
    await server.stop(None)
    assert (answer.fallback, answer.routing.persona) == (True, "Nana")


def test_a_reader_without_weights_ends_the_start_with_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("router_service.analysis.reader.SHIPPED", tmp_path / "reader.npz")
    with pytest.raises(SystemExit) as caught:
        load_reader()
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ion: reader.npz")


async def test_personas_can_be_counted_without_being_listed(router):
    counted = await router.ListPersonas(router_pb2.ListPersonasRequest(count_only=True), timeout=10)
    assert (counted.count, len(counted.personas), counted.problem) == (4, 0, "")
    listed = await router.ListPersonas(router_pb2.ListPersonasRequest(), timeout=10)
    assert (listed.count, len(listed.personas)) == (4, 4)
