"""Protobuf as JSON: whatever the router answers, the document that is promised comes out."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway_http import schemas
from gateway_http.translation import cache_name, chat_response, persona, route_response, server_timing
from ion.error.v1.reason_pb2 import Failure, Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from router_service.analysis import PACES

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
shares = st.floats(0, 1)
counts = st.integers(0, 2**31 - 1)

scores = st.builds(
    router_pb2.PersonaScore, persona=texts, score=shares, tone=shares, pace=shares, intent=shares, tie_breaker=shares
)
routings = st.builds(
    router_pb2.Routing,
    persona=texts,
    secondary_persona=texts,
    confidence=shares,
    resonance_key=texts,
    scores=st.lists(scores, max_size=4),
    reasoning=texts,
    defaulted_parts=st.lists(texts, max_size=3),
    pinned=st.booleans(),
)
analyses = st.builds(
    router_pb2.Analysis,
    tone=st.builds(router_pb2.Tone, primary=texts, confidence=shares, secondary=texts),
    intent=st.builds(router_pb2.Intent, primary=texts, confidence=shares),
    rhythm=st.builds(router_pb2.Rhythm, pace=st.sampled_from(PACES), avg_length=shares, punctuation_density=shares),
    topics=st.lists(texts, max_size=2),
    language=texts,
)
generations = st.builds(
    llm_pb2.Generation,
    model=texts,
    location=texts,
    cache=st.sampled_from(llm_pb2.CacheStatus.values()),
    finish_reason=st.sampled_from(llm_pb2.FinishReason.values()),
    usage=st.builds(llm_pb2.Usage, input_tokens=counts, output_tokens=counts, thinking_tokens=counts),
    attempts=counts,
    offline=st.booleans(),
)


def as_document(answer: msgspec.Struct) -> Any:
    """Through JSON, checked against the schema, and back as plain values."""
    encoded = msgspec.json.encode(answer)
    msgspec.json.decode(encoded, type=type(answer))
    return msgspec.json.decode(encoded)


@given(texts, routings, analyses, generations, texts)
def test_an_answer(content, routing, analysis, generation, session_id):
    response = router_pb2.ChatResponse(
        content=content, routing=routing, analysis=analysis, generation=generation, session_id=session_id
    )
    document = as_document(chat_response(response))
    assert document["content"] == content
    assert document["persona_used"] == routing.persona
    assert document["metadata"]["llm"]["usage"]["input_tokens"] == generation.usage.input_tokens
    assert document["metadata"]["llm"]["cache"] == cache_name(response)
    assert document["metadata"]["routing"]["secondary_persona"] == (routing.secondary_persona or None)
    assert ("session_id" in document) == bool(session_id)
    assert not {"fallback", "error"} & set(document["metadata"])


@given(routings, analyses, st.sampled_from(Reason.values()), st.booleans())
def test_an_apology(routing, analysis, reason, retryable):
    response = router_pb2.ChatResponse(
        routing=routing, analysis=analysis, fallback=True, failure=Failure(reason=reason, retryable=retryable)
    )
    metadata = as_document(chat_response(response))["metadata"]
    assert metadata["fallback"] is True
    assert metadata["error"] == {"reason": Reason.Name(reason).removeprefix("REASON_"), "retryable": retryable}
    assert "llm" not in metadata


@given(routings, analyses)
def test_a_choice(routing, analysis):
    document = as_document(route_response(router_pb2.RouteResponse(routing=routing, analysis=analysis)))
    assert document["scores"] == {score.persona: score.score for score in routing.scores}
    assert document["contributions"].keys() == document["scores"].keys()
    assert document["analysis"]["intent"]["primary"] == analysis.intent.primary


def test_cache_names():
    names = [
        cache_name(router_pb2.ChatResponse(generation=llm_pb2.Generation(cache=status)))
        for status in llm_pb2.CacheStatus.values()
    ]
    assert names == ["off", "hit", "miss", "coalesced", "off"]


def test_timings_are_milliseconds():
    timings = router_pb2.Timings(analysis_micros=150, routing_micros=2, llm_micros=812_345)
    assert server_timing(timings) == "analysis;dur=0.15, routing;dur=0.002, llm;dur=812.345"


def test_every_member_of_a_persona():
    fields = {field.name for field in router_pb2.Persona.DESCRIPTOR.fields}
    assert {field.name for field in msgspec.structs.fields(schemas.Persona)} == fields
    assert as_document(persona(router_pb2.Persona(name="Lua", topics=["feelings"])))["topics"] == ["feelings"]
