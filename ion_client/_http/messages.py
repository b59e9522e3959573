"""Asks as HTTP requests, and their answers as results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar
from urllib.parse import quote

from ion_client import _asks as asks
from ion_client import results
from ion_client._asks import Ended, Page, StreamPart
from ion_client.errors import IonClientError, bad_answer, failure

T = TypeVar("T")
Json = Mapping[str, Any]
EVENT_STREAM: Final = "text/event-stream"
JSON_LINES: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, beside the headers that go with every call."""

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str | bytes] = field(default_factory=dict)
    json: Json | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came: for a stream, one event or line of it."""

    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    event: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How an ask is made, and what its answer (each part of it, for a stream) means."""

    request: Callable[[Any], Request]
    result: Callable[[Answer], Any]

    def read(self, answer: Answer) -> Any:
        """Raises IonClientError, also where the answer is not one of ION's."""
        try:
            return self.result(answer)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise bad_answer() from error


def parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise bad_answer() from error


def _chat_request(ask: asks.ChatAsk) -> Request:
    return Request("POST", "/chat", json=_chat_body(ask), headers=_cache_headers(ask.cache))


def _chat_stream_request(ask: asks.ChatStreamAsk) -> Request:
    headers = _cache_headers(ask.cache) | {"accept": EVENT_STREAM}
    return Request("POST", "/chat", json=_chat_body(ask), headers=headers)


def _chat_body(ask: asks.ChatFields) -> dict[str, Any]:
    given = {
        "user_id": ask.user_id,
        "session_id": ask.session_id,
        "persona": ask.persona,
        "previous_persona": ask.previous_persona,
    }
    return {"message": ask.message} | {name: value for name, value in given.items() if value}


def _cache_headers(cache: results.CacheControl | None) -> dict[str, str | bytes]:
    if cache is None:
        return {}
    wanted = [name for name, set_ in (("no-cache", cache.bypass), ("no-store", cache.no_store)) if set_]
    if cache.max_age_seconds is not None:
        wanted.append(f"max-age={cache.max_age_seconds}")
    return {"cache-control": ", ".join(wanted)} if wanted else {}


def _route_request(ask: asks.RouteAsk) -> Request:
    given = {
        "message": ask.message,
        "resonance_key": ask.resonance_key,
        "previous_persona": ask.previous_persona,
    }
    return Request("POST", "/route", json={name: value for name, value in given.items() if value is not None})


def _sessions_request(ask: asks.SessionsAsk) -> Request:
    return Request("GET", "/sessions", _page_of(ask), _user_headers(ask.user_id))


def _turns_request(ask: asks.TurnsAsk) -> Request:
    params = _page_of(ask) | {"order": "desc" if ask.newest_first else "asc"}
    return Request("GET", _session_path(ask.session_id, "/messages"), params, _user_headers(ask.user_id))


def _page_of(ask: asks.SessionsAsk | asks.TurnsAsk) -> dict[str, str | int]:
    cursor: dict[str, str | int] = {"cursor": ask.cursor} if ask.cursor else {}
    return {"limit": ask.page_size} | cursor


def _on_session(method: str, below: str = "", **headers: str) -> Callable[[Any], Request]:
    return lambda ask: Request(
        method, _session_path(ask.session_id, below), headers=headers | _user_headers(ask.user_id)
    )


def _session_path(session_id: str, below: str = "") -> str:
    """Dots are quoted too: `..` would name another path."""
    return f"/sessions/{quote(session_id, safe='').replace('.', '%2E')}{below}"


def _user_headers(user_id: str) -> dict[str, str | bytes]:
    """Not all ids are ASCII. Raises ValueError for one that would arrive as another."""
    if not user_id.isprintable() or user_id != user_id.strip():
        raise ValueError("user_id must be printable, without white space around it, to travel in a header")
    return {"x-user-id": user_id.encode()} if user_id else {}


def reply(answer: Answer) -> results.Reply:
    body, metadata = answer.body, answer.body["metadata"]
    told = _server_timing(answer.headers.get("server-timing", ""))
    return results.Reply(
        text=body["content"],
        choice=_choice(body),
        analysis=_analysis_told(metadata),
        **_ending(body, told),
    )


def part(answer: Answer) -> StreamPart | None:
    """None for what only a newer service sends."""
    body = answer.body
    if answer.event == "delta":
        return results.Text(body["text"])
    if answer.event == "routing":
        return results.Routed(_choice(body), _analysis_told(body["metadata"]))
    if answer.event == "done":
        apologised = body["metadata"].get("fallback", False)
        told = _of(results.Timings, body.get("timings", {}))
        return Ended(choice=_choice(body) if apologised else None, **_ending(body, told))
    if answer.event == "error":
        raise _told_failure(body)
    return None


def _told_failure(body: Json) -> IonClientError:
    return failure(
        body["reason"],
        body["detail"],
        retry_after_seconds=body.get("retry_after_seconds"),
        request_id=body.get("request_id", ""),
    )


def _ending(body: Json, timings: results.Timings) -> dict[str, Any]:
    metadata = body["metadata"]
    return {
        "generation": _generation(metadata["llm"]) if "llm" in metadata else None,
        "fallback": metadata.get("fallback", False),
        "failure": _of(results.Failure, metadata["error"]) if "error" in metadata else None,
        "session_id": body.get("session_id"),
        "history": metadata.get("history"),
        "timings": timings,
    }


def _server_timing(header: str) -> results.Timings:
    """`analysis;dur=1.2, llm;dur=30`, in milliseconds."""
    entries = (entry.strip().partition(";dur=") for entry in header.split(","))
    return _of(results.Timings, {f"{name}_ms": float(duration) for name, _, duration in entries if duration})


def _choice(body: Json) -> results.Choice:
    routing = body["metadata"].get("routing", {})
    return results.Choice(
        persona=body["persona_used"],
        secondary_persona=routing.get("secondary_persona"),
        confidence=body["confidence"],
        resonance_key=body["resonance_key"],
        reasoning=routing.get("reasoning", ""),
        scores=routing.get("scores", {}),
        pinned=routing.get("pinned", False),
        margin=routing.get("margin", 0.0),
    )


def _analysis_told(metadata: Json) -> results.Analysis | None:
    return _analysis(metadata) if "tone" in metadata else None


def _analysis(given: Json) -> results.Analysis:
    return results.Analysis(
        tone=_of(results.Tone, given["tone"]),
        intent=_of(results.Intent, given["intent"]),
        rhythm=_of(results.Rhythm, given["rhythm"]),
        read_by=given.get("read_by"),
    )


def routing(answer: Answer) -> results.Routing:
    body, analysis = answer.body, answer.body["analysis"]
    read = _analysis(analysis)
    return results.Routing(
        choice=results.Choice(
            persona=body["persona"],
            secondary_persona=body["secondary_persona"],
            confidence=body["confidence"],
            resonance_key=body["resonance_key"],
            reasoning=body["reasoning"],
            scores=body["scores"],
            pinned=False,
            margin=body["margin"],
        ),
        analysis=results.Analysis(
            tone=read.tone,
            intent=read.intent,
            rhythm=read.rhythm,
            read_by=read.read_by,
            topics=analysis["topic_probabilities"],
            language=analysis["language"],
            evidence=tuple(_of(results.Evidence, word) for word in analysis["evidence"]),
        ),
        contributions={name: _of(results.Contribution, parts) for name, parts in body["contributions"].items()},
        defaulted_parts=tuple(body["defaulted_parts"]),
    )


def _generation(given: Json) -> results.Generation:
    return _of(results.Generation, {**given, "usage": _of(results.Usage, given["usage"])})


def _persona(given: Json) -> results.Persona:
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return _of(results.Persona, {**given, **lists})


def _session(given: Json) -> results.SessionInfo:
    times = {name: datetime.fromisoformat(given[name]) for name in ("created_at", "updated_at")}
    return _of(results.SessionInfo, {**given, **times})


def turn(given: Json) -> results.Turn:
    return results.Turn(
        turn_id=int(given["id"]),
        created_at=datetime.fromisoformat(given["created_at"]),
        message=given["message"],
        reply=given["reply"],
        persona=given["persona_used"],
        resonance_key=given["resonance_key"],
        confidence=given["confidence"],
        model=given["model"],
    )


def _of(kind: type[T], given: Json) -> T:
    """The members that `kind`, a dataclass, has; a newer service may send more."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: given[name] for name in names if name in given})


def _page(name: str, item: Callable[[Json], Any]) -> Callable[[Answer], Page[Any]]:
    return lambda answer: Page([item(given) for given in answer.body[name]], answer.body["next_cursor"] or "")


ENDPOINTS: Final[dict[type, Endpoint]] = {
    asks.ChatAsk: Endpoint(_chat_request, reply),
    asks.ChatStreamAsk: Endpoint(_chat_stream_request, part),
    asks.RouteAsk: Endpoint(_route_request, routing),
    asks.PersonasAsk: Endpoint(
        lambda _: Request("GET", "/personas"), lambda answer: tuple(map(_persona, answer.body["personas"]))
    ),
    asks.SessionsAsk: Endpoint(_sessions_request, _page("sessions", _session)),
    asks.SessionAsk: Endpoint(_on_session("GET"), lambda answer: _session(answer.body)),
    asks.TurnsAsk: Endpoint(_turns_request, _page("messages", turn)),
    asks.DeleteSessionAsk: Endpoint(_on_session("DELETE"), lambda _: None),
    asks.ExportAsk: Endpoint(_on_session("GET", "/export", accept=JSON_LINES), lambda answer: turn(answer.body)),
}
