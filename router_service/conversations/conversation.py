"""Conversations as the router keeps them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from chassis.deadline import Deadline
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason


class SessionNotFound(IonError):
    """The owner has no session of that id; whether somebody else has one is not told."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_SESSION_NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Exchange:
    """What was said and what was answered, before it is stored. `confidence` is 0 to 1."""

    message: str
    reply: str
    persona: str
    resonance_key: str
    confidence: float
    model: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A stored exchange. Ids grow within a session; `created_at` is in UTC."""

    turn_id: int
    created_at: datetime
    exchange: Exchange


@dataclass(frozen=True, slots=True)
class Session:
    """`title` is the beginning of the first message; `summary` is "" while there is none. Times are in UTC."""

    session_id: str
    created_at: datetime
    updated_at: datetime
    turns: int
    persona: str
    title: str
    summary: str


@dataclass(frozen=True, slots=True)
class Past:
    """What a session knows as a turn begins. `reference` names the stored session, None where there is none yet.
    `turns` are those that the summary does not cover, oldest first; `persona` answered last, "" for nobody."""

    reference: int | None = None
    summary: str = ""
    turns: Sequence[Turn] = ()
    persona: str = ""


class Conversations(Protocol):
    """The conversations of all owners; every method sees those of `owner` alone. An owner is a digest of 64 hex digits.

    All raise IonError: DATABASE_UNAVAILABLE where the database does not answer in time, InvalidField for a page token
    that is not one, and SessionNotFound where a method is about one session and the owner has none of that id.
    """

    async def recall(self, owner: str, session_id: str, deadline: Deadline) -> Past:
        """Never SessionNotFound: a session that is not known has no past."""
        ...

    async def append(self, owner: str, session_id: str, past: Past, exchange: Exchange, deadline: Deadline) -> bool:
        """Store a turn; once this returns True it stays, whatever happens to this process. False, and nothing is
        stored, where the session of `past` was deleted since."""
        ...

    async def list_sessions(
        self, owner: str, page_size: int, page_token: str, deadline: Deadline
    ) -> tuple[Sequence[Session], str]:
        """The one last used first; and the token of the next page, "" on the last. Summaries are left out."""
        ...

    async def session(self, owner: str, session_id: str, deadline: Deadline) -> Session: ...

    async def list_turns(
        self,
        owner: str,
        session_id: str,
        page_size: int,
        page_token: str,
        deadline: Deadline,
        *,
        newest_first: bool = False,
    ) -> tuple[Sequence[Turn], str]: ...

    async def delete(self, owner: str, session_id: str, deadline: Deadline) -> None: ...

    def export(self, owner: str, session_id: str, deadline: Deadline) -> AsyncGenerator[Turn, None]:
        """All turns, oldest first, a page at a time from the database. To be closed where it is not read to its end."""
        ...

    async def summarise(self, past: Past, covered: int, summary: str, deadline: Deadline) -> bool:
        """Replace the summary of the session of `past` by one that covers its turns up to the id `covered`. False, and
        nothing changes, where another summary was stored since `past` was recalled, or the session is gone."""
        ...

    async def delete_older_than(self, seconds: float, deadline: Deadline) -> int:
        """Delete sessions, of all owners, that were last used longer ago; returns how many, at most 1000 at a time."""
        ...
