"""What a transport may be asked. Each ask says by its type what the answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ion_client.results import (
    CacheControl,
    Choice,
    Failure,
    Generation,
    History,
    Persona,
    Reply,
    Routed,
    Routing,
    SessionInfo,
    Text,
    Timings,
    Turn,
)

T = TypeVar("T")


class Ask(Generic[T]):
    """Answered once, with a T."""

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is as good as once."""
        return True


class StreamAsk(Generic[T]):
    """Answered with any number of T."""

    @property
    def repeatable(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class ChatFields:
    """A message to answer."""

    message: str
    persona: str | None
    previous_persona: str | None
    user_id: str
    session_id: str | None
    cache: CacheControl | None

    @property
    def repeatable(self) -> bool:
        """Not in a session: the turn would be stored twice where only its answer was lost."""
        return not self.session_id


@dataclass(frozen=True, slots=True)
class ChatAsk(ChatFields, Ask[Reply]):
    pass


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a streamed reply, as it comes: `choice` is set for an apology alone."""

    choice: Choice | None
    generation: Generation | None
    fallback: bool
    failure: Failure | None
    session_id: str | None
    history: History | None
    timings: Timings


StreamPart = Routed | Text | Ended


@dataclass(frozen=True, slots=True)
class ChatStreamAsk(ChatFields, StreamAsk[StreamPart]):
    pass


@dataclass(frozen=True, slots=True)
class RouteAsk(Ask[Routing]):
    """Exactly one of message and key is to be given; the service refuses others."""

    message: str | None
    resonance_key: str | None
    previous_persona: str | None


@dataclass(frozen=True, slots=True)
class PersonasAsk(Ask[tuple[Persona, ...]]):
    pass


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`next_cursor` is "" on the last one."""

    items: Sequence[T]
    next_cursor: str


@dataclass(frozen=True, slots=True)
class SessionsAsk(Ask[Page[SessionInfo]]):
    user_id: str
    page_size: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class SessionAsk(Ask[SessionInfo]):
    session_id: str
    user_id: str


@dataclass(frozen=True, slots=True)
class TurnsAsk(Ask[Page[Turn]]):
    session_id: str
    user_id: str
    newest_first: bool
    page_size: int
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class DeleteSessionAsk(Ask[None]):
    session_id: str
    user_id: str

    @property
    def repeatable(self) -> bool:
        """The second time would fail with SESSION_NOT_FOUND, as if it had never been there."""
        return False


@dataclass(frozen=True, slots=True)
class ExportAsk(StreamAsk[Turn]):
    session_id: str
    user_id: str
