"""Conversations that are kept, as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from google.protobuf.timestamp_pb2 import Timestamp
from msgspec import Meta, Struct

from gateway_http.schemas import Share
from ion.router.v1 import router_pb2


class SessionSummary(Struct):
    """A conversation that is kept; `title` is the beginning of its first message."""

    session_id: str
    created_at: datetime
    updated_at: datetime
    turns: int
    persona: str
    title: str


class Session(SessionSummary):
    """`summary` tells its older turns, in a model's words; "" while it is short."""

    summary: str


_CURSOR = Meta(description="For the next page; null on the last.")


class SessionList(Struct):
    """The session last used comes first."""

    sessions: list[SessionSummary]
    next_cursor: Annotated[str | None, _CURSOR]


class Turn(Struct):
    """A message and its reply; `id` grows within the session."""

    id: int
    created_at: datetime
    message: str
    reply: str
    persona_used: str
    resonance_key: str
    confidence: Share
    model: str


class TurnList(Struct):
    messages: list[Turn]
    next_cursor: Annotated[str | None, _CURSOR]


def summary_of(session: router_pb2.Session) -> SessionSummary:
    return SessionSummary(*_summary_fields(session))


def session_of(session: router_pb2.Session) -> Session:
    return Session(*_summary_fields(session), session.summary)


def turn_of(turn: router_pb2.Turn) -> Turn:
    return Turn(
        turn.turn_id,
        _time(turn.created_at),
        turn.message,
        turn.reply,
        turn.persona,
        turn.resonance_key,
        turn.confidence,
        turn.model,
    )


def _summary_fields(session: router_pb2.Session) -> tuple[str, datetime, datetime, int, str, str]:
    created_at, updated_at = _time(session.created_at), _time(session.updated_at)
    return session.session_id, created_at, updated_at, session.turns, session.persona, session.title


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
