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


def chat_response(response: router_pb2.ChatResponse) -> schemas.ChatResponse:
    routing = response.routing
    return schemas.ChatResponse(
        content=response.content,
        persona_used=routing.persona,
        resonance_key=routing.resonance_key,
        confidence=routing.confidence,
        metadata=schemas.Metadata(
            rhythm=_rhythm(response.analysis.rhythm),
            tone=_tone(response.analysis.tone),
            routing=schemas.ChatRouting(
                routing.secondary_persona or None, routing.reasoning, _scores(routing), routing.pinned, routing.margin
            ),
            read_by=_READ_BY.get(response.analysis.read_by),
            llm=_generation(response.generation) if response.HasField("generation") else UNSET,
            fallback=response.fallback,
            error=failure(response.failure) if response.fallback else UNSET,
        ),
        session_id=response.session_id or UNSET,
    )


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


def cache_name(response: router_pb2.ChatResponse) -> str:
    return str(_CACHE.get(response.generation.cache, "off"))


def server_timing(timings: router_pb2.Timings) -> str:
    """Milliseconds, as the Server-Timing header wants them."""
    parts = (
        ("analysis", timings.analysis_micros),
        ("routing", timings.routing_micros),
        ("llm", timings.llm_micros),
    )
    return ", ".join(f"{name};dur={micros / 1000:g}" for name, micros in parts)


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
