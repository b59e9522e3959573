"""Protobuf to JSON structs."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET

from gateway_http import schemas
from ion.error.v1.reason_pb2 import Failure, Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2

_CACHE: Final[dict[int, Any]] = {
    llm_pb2.CACHE_STATUS_HIT: "hit",
    llm_pb2.CACHE_STATUS_MISS: "miss",
    llm_pb2.CACHE_STATUS_COALESCED: "coalesced",
    llm_pb2.CACHE_STATUS_STALE: "hit",
}
_FINISH: Final[dict[int, str]] = {
    llm_pb2.FINISH_REASON_STOP: "stop",
    llm_pb2.FINISH_REASON_MAX_TOKENS: "max_tokens",
}
_READ_BY: Final[dict[int, Any]] = {router_pb2.READ_BY_READER: "reader", router_pb2.READ_BY_MODEL: "model"}


_HISTORY: Final[dict[int, Any]] = {
    router_pb2.HISTORY_STATUS_STORED: "stored",
    router_pb2.HISTORY_STATUS_UNAVAILABLE: "unavailable",
    router_pb2.HISTORY_STATUS_SKIPPED: "skipped",
}


def chat_response(response: router_pb2.ChatResponse) -> schemas.ChatResponse:
    routing = response.routing
    metadata = _choice_metadata(routing, response.analysis)
    _add_outcome(metadata, response)
    return schemas.ChatResponse(
        content=response.content,
        persona_used=routing.persona,
        resonance_key=routing.resonance_key,
        confidence=routing.confidence,
        metadata=metadata,
        session_id=response.session_id or UNSET,
    )


def choice(routed: router_pb2.Routed, session_id: str) -> schemas.RoutingEvent:
    routing = routed.routing
    return schemas.RoutingEvent(
        routing.persona,
        routing.resonance_key,
        routing.confidence,
        _choice_metadata(routing, routed.analysis),
        session_id or UNSET,
    )


def done(end: router_pb2.ChatDone, routed: router_pb2.Routed) -> schemas.DoneEvent:
    """`routed` is the choice that the stream began with; an apology has its own reasons."""
    routing = end.routing if end.fallback else routed.routing
    metadata = schemas.Metadata(routing=_chat_routing(routing) if end.fallback else UNSET)
    _add_outcome(metadata, end)
    return schemas.DoneEvent(
        routing.persona,
        routing.resonance_key,
        routing.confidence,
        metadata,
        _timings(end.timings),
        end.session_id or UNSET,
    )


def _choice_metadata(routing: router_pb2.Routing, analysis: router_pb2.Analysis) -> schemas.Metadata:
    return schemas.Metadata(
        rhythm=_rhythm(analysis.rhythm),
        tone=_tone(analysis.tone),
        intent=schemas.Intent(analysis.intent.primary, analysis.intent.confidence),
        routing=_chat_routing(routing),
        read_by=_READ_BY.get(analysis.read_by),
    )


def _chat_routing(routing: router_pb2.Routing) -> schemas.ChatRouting:
    return schemas.ChatRouting(
        routing.secondary_persona or None, routing.reasoning, _scores(routing), routing.pinned, routing.margin
    )


def _add_outcome(metadata: schemas.Metadata, end: router_pb2.ChatResponse | router_pb2.ChatDone) -> None:
    metadata.llm = _generation(end.generation) if end.HasField("generation") else UNSET
    metadata.history = _HISTORY.get(end.history, UNSET)
    metadata.fallback = end.fallback
    metadata.error = failure(end.failure) if end.fallback else UNSET


def used_tokens(generation: llm_pb2.Generation) -> int:
    """What a reply counts for its caller: nothing where no model was asked for it."""
    usage = generation.usage
    return usage.input_tokens + usage.output_tokens + usage.thinking_tokens if generation.attempts else 0


def failure(given: Failure) -> schemas.Failure:
    return schemas.Failure(Reason.Name(given.reason).removeprefix("REASON_"), given.retryable)


def route_response(response: router_pb2.RouteResponse) -> schemas.RouteResponse:
    routing, analysis = response.routing, response.analysis
    return schemas.RouteResponse(
        persona=routing.persona,
        secondary_persona=routing.secondary_persona or None,
        confidence=routing.confidence,
        resonance_key=routing.resonance_key,
        scores=_scores(routing),
        contributions={
            score.persona: schemas.Contribution(
                score.tone, score.pace, score.intent, score.tie_breaker, score.session_bonus
            )
            for score in routing.scores
        },
        reasoning=routing.reasoning,
        defaulted_parts=list(routing.defaulted_parts),
        analysis=schemas.Analysis(
            tone=_tone(analysis.tone),
            pace=analysis.rhythm.pace,
            intent=schemas.Intent(analysis.intent.primary, analysis.intent.confidence),
            rhythm=_rhythm(analysis.rhythm),
            topics=list(analysis.topics),
            language=analysis.language,
            topic_probabilities=dict(zip(analysis.topics, analysis.topic_probabilities, strict=False)),
            evidence=_evidence(analysis),
            read_by=_READ_BY.get(analysis.read_by),
        ),
        margin=routing.margin,
    )


def persona(given: router_pb2.Persona) -> schemas.Persona:
    return schemas.Persona(
        name=given.name,
        korean_name=given.korean_name,
        role=given.role,
        symbol=given.symbol,
        traits=list(given.traits),
        strengths=list(given.strengths),
        preferred_tones=list(given.preferred_tones),
        prompt_style=given.prompt_style,
        topics=list(given.topics),
    )


def cache_name(response: router_pb2.ChatResponse | router_pb2.ChatDone) -> str:
    return str(_CACHE.get(response.generation.cache, "off"))


def server_timing(timings: router_pb2.Timings) -> str:
    """Milliseconds, as the Server-Timing header wants them."""
    parts = [
        ("analysis", timings.analysis_micros),
        ("routing", timings.routing_micros),
        ("llm", timings.llm_micros),
    ]
    if timings.history_micros:
        parts.append(("history", timings.history_micros))
    return ", ".join(f"{name};dur={micros / 1000:g}" for name, micros in parts)


def _timings(timings: router_pb2.Timings) -> schemas.Timings:
    micros = (timings.analysis_micros, timings.routing_micros, timings.llm_micros, timings.history_micros)
    return schemas.Timings(*(value / 1000 for value in micros))


def _scores(routing: router_pb2.Routing) -> dict[str, float]:
    return {score.persona: score.score for score in routing.scores}


def _tone(tone: router_pb2.Tone) -> schemas.Tone:
    return schemas.Tone(
        tone.primary, tone.confidence, tone.secondary or None, tone.secondary_confidence, tone.abstained
    )


def _evidence(analysis: router_pb2.Analysis) -> list[schemas.Evidence]:
    return [schemas.Evidence(word.text, word.weight) for word in analysis.evidence]


def _rhythm(rhythm: router_pb2.Rhythm) -> schemas.Rhythm:
    pace: Any = rhythm.pace
    return schemas.Rhythm(pace, rhythm.avg_length, rhythm.punctuation_density, rhythm.confidence)


def _generation(generation: llm_pb2.Generation) -> schemas.Generation:
    usage = generation.usage
    return schemas.Generation(
        model=generation.model,
        location=generation.location,
        cache=_CACHE.get(generation.cache, "off"),
        finish_reason=_FINISH.get(generation.finish_reason, "unknown"),
        usage=schemas.Usage(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.thinking_tokens),
        attempts=generation.attempts,
        offline=generation.offline,
        hedges=generation.hedges,
        queued_ms=generation.queued_micros / 1000,
        estimated_cost_usd=generation.estimated_cost_usd if generation.HasField("estimated_cost_usd") else None,
    )
