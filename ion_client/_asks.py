"""What a transport may be asked. Each ask says by its type what the answer is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

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
MAX_PAGE_SIZE: Final = 100


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
class PageFields:
    """Over HTTP 0 would be refused, over gRPC be the service's choice: here it is refused for both."""

    user_id: str
    page_size: int

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= MAX_PAGE_SIZE:
            raise ValueError(f"page_size must be 1 to {MAX_PAGE_SIZE}, not {self.page_size}")


@dataclass(frozen=True, slots=True)
class SessionFields:
    """Without its id the path of a session would be that of all sessions."""

    session_id: str
    user_id: str

    def __post_init__(self) -> None:
        if not self.session_id:
            raise ValueError("session_id must not be empty")


@dataclass(frozen=True, slots=True)
class SessionsAsk(PageFields, Ask[Page[SessionInfo]]):
    cursor: str = ""


@dataclass(frozen=True, slots=True)
class SessionAsk(SessionFields, Ask[SessionInfo]):
    pass


@dataclass(frozen=True, slots=True)
class TurnsAsk(PageFields, Ask[Page[Turn]]):
    session_id: str
    newest_first: bool
    cursor: str = ""

    def __post_init__(self) -> None:
        PageFields.__post_init__(self)
        SessionFields(self.session_id, self.user_id)


@dataclass(frozen=True, slots=True)
class DeleteSessionAsk(SessionFields, Ask[None]):
    @property
    def repeatable(self) -> bool:
        """The second time would fail with SESSION_NOT_FOUND, as if it had never been there."""
        return False


@dataclass(frozen=True, slots=True)
class ExportAsk(SessionFields, StreamAsk[Turn]):
    pass
