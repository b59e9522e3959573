"""The async client: as the sync one in _client.py, which documents it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
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
from ion_client._stream import AsyncReplyStream
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


class AsyncTransport(Protocol):
    """One attempt at a time, in one event loop. Cancelling a call cancels it at the service."""

    async def call(self, ask: Ask[T], envelope: Envelope) -> T:
        """Raises IonClientError."""
        ...

    def stream(self, ask: StreamAsk[T], envelope: Envelope) -> AsyncGenerator[T, None]:
        """Raises IonClientError, after any number of parts. Closing it cancels the call."""
        ...

    async def close(self) -> None:
        """Cancels what is under way."""
        ...


class AsyncClient:
    """Calls ION; made by `ion_client.connect_async`, and to be closed, by `async with` or `close`. It belongs to the
    event loop that it is first used in. Cancelling a call cancels it all the way down.

    Every method takes `timeout_seconds`, above 0 and at most 300, for the whole call: retries, and all of a stream. It
    travels, so that the service stops then too. Every method raises IonClientError, of which each failure is a
    subclass.
    """

    def __init__(self, transport: AsyncTransport, options: Options) -> None:
        self._transport = transport
        self._options = options
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        self._closed = True
        await self._transport.close()

    async def chat(
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
        return replace(await self._run(ask, attempts), request_id=attempts.envelope.request_id)

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
    ) -> AsyncReplyStream:
        """The same as `chat`, with the text as it comes. The time begins with the first use of the stream."""
        user = self._user(user_id)
        ask = ChatStreamAsk(message, persona, previous_persona, user, session_id, cache)
        return AsyncReplyStream(lambda: self._reply_events(ask, timeout_seconds))

    async def route(
        self,
        message: str | None = None,
        *,
        resonance_key: str | None = None,
        previous_persona: str | None = None,
        timeout_seconds: float | None = None,
    ) -> Routing:
        """Who would answer a message, or a key `{tone}-{pace}-{intent}`, and why; no model is called."""
        return await self._call(RouteAsk(message, resonance_key, previous_persona), timeout_seconds)

    async def personas(self, *, timeout_seconds: float | None = None) -> tuple[Persona, ...]:
        """All personas, by name."""
        return await self._call(PersonasAsk(), timeout_seconds)

    def sessions(
        self, *, user_id: str | None = None, page_size: int = 20, timeout_seconds: float | None = None
    ) -> AsyncIterator[SessionInfo]:
        """The caller's conversations, the one that was last used first; asked for a page of 1 to 100 at a time, each
        within `timeout_seconds`."""
        return self._pages(SessionsAsk(self._user(user_id), page_size), timeout_seconds)

    async def session(
        self, session_id: str, *, user_id: str | None = None, timeout_seconds: float | None = None
    ) -> SessionInfo:
        """One of them, with its summary. Raises NotFound."""
        return await self._call(SessionAsk(session_id, self._user(user_id)), timeout_seconds)

    def turns(
        self,
        session_id: str,
        *,
        user_id: str | None = None,
        newest_first: bool = False,
        page_size: int = 20,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[Turn]:
        """What was said and answered in a session; asked for by the page, as in `sessions`. Raises NotFound."""
        ask = TurnsAsk(self._user(user_id), page_size, session_id, newest_first)
        return self._pages(ask, timeout_seconds)

    async def delete_session(
        self, session_id: str, *, user_id: str | None = None, timeout_seconds: float | None = None
    ) -> None:
        """Delete a session with all its turns. Raises NotFound."""
        await self._call(DeleteSessionAsk(session_id, self._user(user_id)), timeout_seconds)

    def export_session(
        self, session_id: str, *, user_id: str | None = None, timeout_seconds: float | None = None
    ) -> AsyncGenerator[Turn, None]:
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

    async def _call(self, ask: Ask[T], timeout_seconds: float | None) -> T:
        return await self._run(ask, self._attempts_at(ask, timeout_seconds))

    async def _run(self, ask: Ask[T], attempts: Attempts) -> T:
        while True:
            try:
                return await self._transport.call(ask, attempts.envelope)
            except IonClientError as error:
                await self._wait(attempts, error)

    async def _wait(self, attempts: Attempts, error: IonClientError) -> None:
        """Until the next attempt. Raises the failure where there is to be none."""
        if not self._closed:
            await asyncio.sleep(attempts.wait_seconds(error))
        if self._closed:
            raise client_closed() from error

    async def _pages(self, ask: Ask[Page[T]], timeout_seconds: float | None) -> AsyncIterator[T]:
        page = await self._call(ask, timeout_seconds)
        while True:
            for item in page.items:
                yield item
            if not page.next_cursor:
                return
            page = await self._call(replace(ask, cursor=page.next_cursor), timeout_seconds)  # type: ignore[type-var]

    def _reply_events(self, ask: ChatStreamAsk, timeout_seconds: float | None) -> AsyncGenerator[Event, None]:
        attempts = self._attempts_at(ask, timeout_seconds)
        return self._stream(ask, Assembly(attempts.envelope.request_id), attempts)

    async def _stream(self, ask: StreamAsk[P], intake: Intake[P, T], attempts: Attempts) -> AsyncGenerator[T, None]:
        while True:
            try:
                async with aclosing(self._transport.stream(ask, attempts.envelope)) as parts:
                    async for part in parts:
                        yield intake.take(part)
                intake.check_end()
            except IonClientError as error:
                if intake.complete:
                    return
                await self._wait(attempts, intake.broken_by(error))
            else:
                return
