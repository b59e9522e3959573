"""The sync client."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self, TypeVar

from ion_client._asks import (
    Ask,
    ChatAsk,
    ChatStreamAsk,
    DeleteSessionAsk,
    ExportAsk,
    Page,
    PersonasAsk,
    RouteAsk,
    SessionAsk,
    SessionsAsk,
    StreamAsk,
    TurnsAsk,
)
from ion_client._assembly import Assembly, Intake, Passing
from ion_client._options import Options
from ion_client._retry import Attempts, Envelope
from ion_client._stream import ReplyStream
from ion_client.errors import IonClientError, client_closed
from ion_client.results import (
    CacheControl,
    Event,
    Persona,
    Reply,
    Routing,
    SessionInfo,
    Turn,
)

T = TypeVar("T")
P = TypeVar("P")


class Transport(Protocol):
    """One attempt at a time. Safe to use from several threads."""

    def call(self, ask: Ask[T], envelope: Envelope) -> T:
        """Raises IonClientError."""
        ...

    def stream(self, ask: StreamAsk[T], envelope: Envelope) -> Generator[T, None, None]:
        """Raises IonClientError, after any number of parts. Closing it cancels the call."""
        ...

    def close(self) -> None:
        """Cancels what is under way."""
        ...


class Client:
    """Calls ION; made by `ion_client.connect`. Safe to use from several threads, and to be closed, by `with` or
    `close`.

    Every method takes `timeout_seconds`, above 0 and at most 300, for the whole call: retries, and all of a stream. It
    travels, so that the service stops then too. Every method raises IonClientError, of which each failure is a
    subclass.
    """

    def __init__(self, transport: Transport, options: Options) -> None:
        self._transport = transport
        self._options = options
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True
        self._transport.close()

    def chat(
        self,
        message: str,
        *,
        persona: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        previous_persona: str | None = None,
        cache: CacheControl | None = None,
        timeout_seconds: float | None = None,
    ) -> Reply:
        """The answer to a message of 1 to 1000 characters, by the persona that fits it best, or by `persona`.

        With a `session_id` what was said before is part of it, and this turn will be. Where the model cannot answer,
        the reply is an apology (`reply.fallback`); it is not retried.
        """
        user = self._user(user_id)
        ask = ChatAsk(message, persona, previous_persona, user, session_id, cache)
        attempts = self._attempts_at(ask, timeout_seconds)
        return replace(self._run(ask, attempts), request_id=attempts.envelope.request_id)

    def stream(
        self,
        message: str,
        *,
        persona: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        previous_persona: str | None = None,
        cache: CacheControl | None = None,
        timeout_seconds: float | None = None,
    ) -> ReplyStream:
        """The same as `chat`, with the text as it comes. The time begins with the first use of the stream."""
        user = self._user(user_id)
        ask = ChatStreamAsk(message, persona, previous_persona, user, session_id, cache)
        return ReplyStream(lambda: self._reply_events(ask, timeout_seconds))

    def route(
        self,
        message: str | None = None,
        *,
        resonance_key: str | None = None,
        previous_persona: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Routing:
        """Who would answer a message, or a key `{tone}-{pace}-{intent}`, and why; no model is called."""
        return self._call(RouteAsk(message, resonance_key, previous_persona), timeout_seconds)

    def personas(self, *, timeout_seconds: float | None = None) -> tuple[Persona, ...]:
        """All personas, by name."""
        return self._call(PersonasAsk(), timeout_seconds)

    def sessions(
        self, *, user_id: str | None = None, page_size: int = 20, timeout_seconds: float | None = None
    ) -> Iterator[SessionInfo]:
        """The caller's conversations, the one that was last used first; asked for a page of 1 to 100 at a time, each
        within `timeout_seconds`."""
        return self._pages(SessionsAsk(self._user(user_id), page_size), timeout_seconds)

    def session(
        self, session_id: str, *, user_id: str | None = None, timeout_seconds: float | None = None
    ) -> SessionInfo:
        """One of them, with its summary. Raises NotFound."""
        return self._call(SessionAsk(session_id, self._user(user_id)), timeout_seconds)

    def turns(
        self,
        session_id: str,
        *,
        user_id: str | None = None,
        newest_first: bool = False,
        page_size: int = 20,
        timeout_seconds: float | None = None,
    ) -> Iterator[Turn]:
        """What was said and answered in a session; asked for by the page, as in `sessions`. Raises NotFound."""
        ask = TurnsAsk(self._user(user_id), page_size, session_id, newest_first)
        return self._pages(ask, timeout_seconds)

    def delete_session(
        self, session_id: str, *, user_id: str | None = None, timeout_seconds: float | None = None
    ) -> None:
        """Delete a session with all its turns. Raises NotFound."""
        self._call(DeleteSessionAsk(session_id, self._user(user_id)), timeout_seconds)

    def export_session(
        self, session_id: str, *, user_id: str | None = None, timeout_seconds: float | None = None
    ) -> Generator[Turn, None, None]:
        """All turns of a session, oldest first, in one call that `timeout_seconds` spans. Raises NotFound, and
        Interrupted after its first turn. Closing the generator cancels the call."""
        ask = ExportAsk(session_id, self._user(user_id))
        return self._stream(ask, Passing(), self._attempts_at(ask, timeout_seconds))

    def _user(self, user_id: str | None) -> str:
        return self._options.user_id if user_id is None else user_id

    def _attempts_at(self, ask: Ask[T] | StreamAsk[T], timeout_seconds: float | None) -> Attempts:
        if self._closed:
            raise RuntimeError("the client is closed")
        return self._options.attempts_at(ask, timeout_seconds)

    def _call(self, ask: Ask[T], timeout_seconds: float | None) -> T:
        return self._run(ask, self._attempts_at(ask, timeout_seconds))

    def _run(self, ask: Ask[T], attempts: Attempts) -> T:
        while True:
            try:
                return self._transport.call(ask, attempts.envelope)
            except IonClientError as error:
                self._wait(attempts, error)

    def _wait(self, attempts: Attempts, error: IonClientError) -> None:
        """Until the next attempt. Raises the failure where there is to be none."""
        if not self._closed:
            time.sleep(attempts.wait_seconds(error))
        if self._closed:
            raise client_closed() from error

    def _pages(self, ask: Ask[Page[T]], timeout_seconds: float | None) -> Iterator[T]:
        page = self._call(ask, timeout_seconds)
        yield from page.items
        while page.next_cursor:
            page = self._call(replace(ask, cursor=page.next_cursor), timeout_seconds)  # type: ignore[type-var]
            yield from page.items

    def _reply_events(self, ask: ChatStreamAsk, timeout_seconds: float | None) -> Generator[Event, None, None]:
        attempts = self._attempts_at(ask, timeout_seconds)
        return self._stream(ask, Assembly(attempts.envelope.request_id), attempts)

    def _stream(self, ask: StreamAsk[P], intake: Intake[P, T], attempts: Attempts) -> Generator[T, None, None]:
        while True:
            try:
                with closing(self._transport.stream(ask, attempts.envelope)) as parts:
                    for part in parts:
                        yield intake.take(part)
                intake.check_end()
            except IonClientError as error:
                if intake.complete:
                    return
                self._wait(attempts, intake.broken_by(error))
            else:
                return
