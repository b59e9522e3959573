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
    router_pb2.PersonaScore,
    persona=texts,
    score=shares,
    tone=shares,
    pace=shares,
    intent=shares,
    tie_breaker=shares,
    session_bonus=shares,
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
    margin=st.floats(-1.13, 1.13),
)
analyses = st.builds(
    router_pb2.Analysis,
    tone=st.builds(
        router_pb2.Tone,
        primary=texts,
        confidence=shares,
        secondary=texts,
        secondary_confidence=shares,
        abstained=st.booleans(),
    ),
    intent=st.builds(router_pb2.Intent, primary=texts, confidence=shares),
    rhythm=st.builds(
        router_pb2.Rhythm,
        pace=st.sampled_from(PACES),
        avg_length=shares,
        punctuation_density=shares,
        confidence=shares,
    ),
    topics=st.just(["data", "code"]),
    topic_probabilities=st.lists(shares, min_size=2, max_size=2),
    language=texts,
    evidence=st.lists(st.builds(router_pb2.Evidence, text=texts, weight=st.floats(0, 9)), max_size=3),
    read_by=st.sampled_from(router_pb2.ReadBy.values()),
)
READ_BY = {router_pb2.READ_BY_READER: "reader", router_pb2.READ_BY_MODEL: "model"}
generations = st.builds(
    llm_pb2.Generation,
    model=texts,
    location=texts,
    cache=st.sampled_from(llm_pb2.CacheStatus.values()),
    finish_reason=st.sampled_from(llm_pb2.FinishReason.values()),
    usage=st.builds(llm_pb2.Usage, input_tokens=counts, output_tokens=counts, thinking_tokens=counts),
    attempts=counts,
    offline=st.booleans(),
    hedges=counts,
    queued_micros=counts,
    estimated_cost_usd=st.none() | st.floats(0, 9),
)


def as_document(answer: msgspec.Struct) -> Any:
    """Through JSON, checked against the schema, and back as plain values."""
    encoded = msgspec.json.encode(answer)
    msgspec.json.decode(encoded, type=type(answer))
    return msgspec.json.decode(encoded)


def tone_of(analysis: router_pb2.Analysis) -> dict[str, Any]:
    names = ("primary", "confidence", "secondary_confidence", "abstained")
    return {name: getattr(analysis.tone, name) for name in names} | {"secondary": analysis.tone.secondary or None}


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
    assert document["metadata"]["llm"]["hedges"] == generation.hedges
    assert document["metadata"]["llm"]["queued_ms"] == generation.queued_micros / 1000
    cost = generation.estimated_cost_usd if generation.HasField("estimated_cost_usd") else None
    assert document["metadata"]["llm"]["estimated_cost_usd"] == cost
    assert document["metadata"]["routing"]["secondary_persona"] == (routing.secondary_persona or None)
    assert ("session_id" in document) == bool(session_id)
    assert not {"fallback", "error"} & set(document["metadata"])
    assert document["metadata"]["routing"]["margin"] == routing.margin
    assert document["metadata"]["tone"] == tone_of(analysis)
    assert document["metadata"]["read_by"] == READ_BY.get(analysis.read_by)


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
    names = ("tone", "pace", "intent", "tie_breaker", "session_bonus")
    assert document["contributions"] == {
        score.persona: {name: getattr(score, name) for name in names} for score in routing.scores
    }
    assert document["margin"] == routing.margin
    read = document["analysis"]
    assert read["intent"]["primary"] == analysis.intent.primary
    assert read["tone"] == tone_of(analysis)
    assert read["rhythm"]["confidence"] == analysis.rhythm.confidence
    assert read["topics"] == list(analysis.topics)
    assert read["topic_probabilities"] == dict(zip(analysis.topics, analysis.topic_probabilities, strict=True))
    assert read["evidence"] == [{"text": word.text, "weight": word.weight} for word in analysis.evidence]
    assert read["read_by"] == READ_BY.get(analysis.read_by)


def test_cache_names():
    """A stale reply is a hit to who asks."""
    names = [
        cache_name(router_pb2.ChatResponse(generation=llm_pb2.Generation(cache=status)))
        for status in llm_pb2.CacheStatus.values()
    ]
    assert names == ["off", "hit", "miss", "coalesced", "off", "hit"]


def test_timings_are_milliseconds():
    timings = router_pb2.Timings(analysis_micros=150, routing_micros=2, llm_micros=812_345)
    assert server_timing(timings) == "analysis;dur=0.15, routing;dur=0.002, llm;dur=812.345"


def test_every_member_of_a_persona():
    fields = {field.name for field in router_pb2.Persona.DESCRIPTOR.fields}
    assert {field.name for field in msgspec.structs.fields(schemas.Persona)} == fields
    assert as_document(persona(router_pb2.Persona(name="Lua", topics=["feelings"])))["topics"] == ["feelings"]
