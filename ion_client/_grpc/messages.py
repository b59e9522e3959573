"""Asks as messages of the contract, and its answers as results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from ion_client import _asks as asks
from ion_client import results
from ion_client._asks import Ended, Page, StreamPart

_CACHE: Final[dict[int, results.CacheUse]] = {
    llm_pb2.CACHE_STATUS_HIT: "hit",
    llm_pb2.CACHE_STATUS_STALE: "hit",
    llm_pb2.CACHE_STATUS_MISS: "miss",
    llm_pb2.CACHE_STATUS_COALESCED: "coalesced",
}
_FINISH: Final = {llm_pb2.FINISH_REASON_STOP: "stop", llm_pb2.FINISH_REASON_MAX_TOKENS: "max_tokens"}
_READ_BY: Final = {router_pb2.READ_BY_READER: "reader", router_pb2.READ_BY_MODEL: "model"}
_HISTORY: Final[dict[int, results.History]] = {
    router_pb2.HISTORY_STATUS_STORED: "stored",
    router_pb2.HISTORY_STATUS_UNAVAILABLE: "unavailable",
    router_pb2.HISTORY_STATUS_SKIPPED: "skipped",
}


@dataclass(frozen=True, slots=True)
class Method:
    """How an ask is made: the method's name, the request, and the result of a response (of each, for a stream)."""

    name: str
    request: Callable[[Any], Any]
    result: Callable[[Any], Any]


def _chat_fields(ask: asks.ChatFields) -> dict[str, Any]:
    return {
        "message": ask.message,
        "user_id": ask.user_id,
        "session_id": ask.session_id,
        "persona": ask.persona,
        "previous_persona": ask.previous_persona,
        "cache_control": _cache_control(ask.cache) if ask.cache else None,
    }


def _cache_control(cache: results.CacheControl) -> llm_pb2.CacheControl:
    return llm_pb2.CacheControl(bypass=cache.bypass, no_store=cache.no_store, max_age_seconds=cache.max_age_seconds)


def _route_request(ask: asks.RouteAsk) -> router_pb2.RouteRequest:
    """Of two inputs the last one would silently win: then neither is sent, which the service refuses."""
    request = router_pb2.RouteRequest(previous_persona=ask.previous_persona or "")
    if ask.message is not None and ask.resonance_key is None:
        request.message = ask.message
    if ask.resonance_key is not None and ask.message is None:
        request.resonance_key = ask.resonance_key
    return request


def _page_of(ask: asks.SessionsAsk | asks.TurnsAsk) -> dict[str, Any]:
    return {"user_id": ask.user_id, "page_size": ask.page_size, "page_token": ask.cursor}


def _own_session(request: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda ask: request(session_id=ask.session_id, user_id=ask.user_id)


def reply(response: router_pb2.ChatResponse) -> results.Reply:
    return results.Reply(
        text=response.content,
        choice=_choice(response.routing),
        analysis=_analysis(response.analysis),
        **_ending(response),
    )


def part(response: router_pb2.ChatStreamResponse) -> StreamPart | None:
    """None for what only a newer service sends."""
    kind = response.WhichOneof("event")
    if kind == "routed":
        return results.Routed(_choice(response.routed.routing), _analysis(response.routed.analysis))
    if kind == "text":
        return results.Text(response.text)
    if kind == "done":
        done = response.done
        return Ended(choice=_choice(done.routing) if done.fallback else None, **_ending(done))
    return None


def _ending(given: router_pb2.ChatResponse | router_pb2.ChatDone) -> dict[str, Any]:
    return {
        "generation": _generation(given.generation) if given.HasField("generation") else None,
        "fallback": given.fallback,
        "failure": _failure(given.failure) if given.fallback else None,
        "session_id": given.session_id or None,
        "history": _HISTORY.get(given.history),
        "timings": _timings(given.timings),
    }


def routing(response: router_pb2.RouteResponse) -> results.Routing:
    choice, analysis = response.routing, response.analysis
    read = _analysis(analysis)
    return results.Routing(
        choice=_choice(choice),
        analysis=results.Analysis(
            tone=read.tone,
            intent=read.intent,
            rhythm=read.rhythm,
            read_by=read.read_by,
            topics=dict(zip(analysis.topics, analysis.topic_probabilities, strict=False)),
            language=analysis.language,
            evidence=tuple(results.Evidence(word.text, word.weight) for word in analysis.evidence),
        ),
        contributions={
            score.persona: results.Contribution(
                score.tone, score.pace, score.intent, score.tie_breaker, score.session_bonus
            )
            for score in choice.scores
        },
        defaulted_parts=tuple(choice.defaulted_parts),
    )


def _choice(given: router_pb2.Routing) -> results.Choice:
    return results.Choice(
        persona=given.persona,
        secondary_persona=given.secondary_persona or None,
        confidence=given.confidence,
        resonance_key=given.resonance_key,
        reasoning=given.reasoning,
        scores={score.persona: score.score for score in given.scores},
        pinned=given.pinned,
        margin=given.margin,
    )


def _analysis(given: router_pb2.Analysis) -> results.Analysis:
    tone, intent, rhythm = given.tone, given.intent, given.rhythm
    return results.Analysis(
        tone=results.Tone(
            tone.primary, tone.confidence, tone.secondary or None, tone.secondary_confidence, tone.abstained
        ),
        intent=results.Intent(intent.primary, intent.confidence),
        rhythm=results.Rhythm(rhythm.pace, rhythm.avg_length, rhythm.punctuation_density, rhythm.confidence),
        read_by=_READ_BY.get(given.read_by),
    )


def _generation(given: llm_pb2.Generation) -> results.Generation:
    usage = given.usage
    return results.Generation(
        model=given.model,
        location=given.location,
        cache=_CACHE.get(given.cache, "off"),
        finish_reason=_FINISH.get(given.finish_reason, "unknown"),
        usage=results.Usage(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.thinking_tokens),
        attempts=given.attempts,
        hedges=given.hedges,
        queued_ms=given.queued_micros / 1000,
        estimated_cost_usd=given.estimated_cost_usd if given.HasField("estimated_cost_usd") else None,
        offline=given.offline,
    )


def _failure(given: Any) -> results.Failure:
    """A reason of a newer service has no name here."""
    known = given.reason in Reason.values()
    name = Reason.Name(given.reason).removeprefix("REASON_") if known else str(given.reason)
    return results.Failure(name, given.retryable)


def _timings(given: router_pb2.Timings) -> results.Timings:
    return results.Timings(
        given.analysis_micros / 1000, given.routing_micros / 1000, given.llm_micros / 1000, given.history_micros / 1000
    )


def _persona(given: router_pb2.Persona) -> results.Persona:
    return results.Persona(
        name=given.name,
        korean_name=given.korean_name,
        role=given.role,
        symbol=given.symbol,
        traits=tuple(given.traits),
        strengths=tuple(given.strengths),
        preferred_tones=tuple(given.preferred_tones),
        prompt_style=given.prompt_style,
        topics=tuple(given.topics),
    )


def _session(given: router_pb2.Session) -> results.SessionInfo:
    return results.SessionInfo(
        session_id=given.session_id,
        created_at=_time(given.created_at),
        updated_at=_time(given.updated_at),
        turns=given.turns,
        persona=given.persona,
        title=given.title,
        summary=given.summary,
    )


def _turn(given: router_pb2.Turn) -> results.Turn:
    return results.Turn(
        turn_id=given.turn_id,
        created_at=_time(given.created_at),
        message=given.message,
        reply=given.reply,
        persona=given.persona,
        resonance_key=given.resonance_key,
        confidence=given.confidence,
        model=given.model,
    )


def _time(given: Timestamp) -> Any:
    return given.ToDatetime(tzinfo=UTC)


def _personas(response: router_pb2.ListPersonasResponse) -> tuple[results.Persona, ...]:
    return tuple(map(_persona, response.personas))


def _sessions(response: router_pb2.ListSessionsResponse) -> Page[results.SessionInfo]:
    return Page([_session(item) for item in response.sessions], response.next_page_token)


def _turns(response: router_pb2.ListTurnsResponse) -> Page[results.Turn]:
    return Page([_turn(item) for item in response.turns], response.next_page_token)


METHODS: Final[dict[type, Method]] = {
    asks.ChatAsk: Method("Chat", lambda ask: router_pb2.ChatRequest(**_chat_fields(ask)), reply),
    asks.ChatStreamAsk: Method("ChatStream", lambda ask: router_pb2.ChatStreamRequest(**_chat_fields(ask)), part),
    asks.RouteAsk: Method("Route", _route_request, routing),
    asks.PersonasAsk: Method("ListPersonas", lambda _: router_pb2.ListPersonasRequest(), _personas),
    asks.SessionsAsk: Method("ListSessions", lambda ask: router_pb2.ListSessionsRequest(**_page_of(ask)), _sessions),
    asks.SessionAsk: Method(
        "GetSession", _own_session(router_pb2.GetSessionRequest), lambda got: _session(got.session)
    ),
    asks.TurnsAsk: Method(
        "ListTurns",
        lambda ask: router_pb2.ListTurnsRequest(
            session_id=ask.session_id, newest_first=ask.newest_first, **_page_of(ask)
        ),
        _turns,
    ),
    asks.DeleteSessionAsk: Method("DeleteSession", _own_session(router_pb2.DeleteSessionRequest), lambda _: None),
    asks.ExportAsk: Method("ExportSession", _own_session(router_pb2.ExportSessionRequest), lambda got: _turn(got.turn)),
}
