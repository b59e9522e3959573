"""Answers that are sent piece by piece, as their parts come."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Self

from litestar import Request, Response
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from chassis.errors import IonError
from gateway_http import exchange
from gateway_http.departure import cancelled_when_client_leaves, is_settled, settle
from gateway_http.errors import as_told, status_of
from ion.error.v1.reason_pb2 import Reason

_log = logging.getLogger(__name__)
_NO_PART: Final = object()


@dataclass(frozen=True, slots=True)
class Format:
    """How the parts of a stream are written, a whole piece each. `failed` says that the stream broke off; without it
    the connection is cut, which no reader takes for an end. `heartbeat` is sent where nothing else was for
    `silence_seconds`; empty: never."""

    media_type: str
    encode: Callable[[Any], bytes]
    failed: Callable[[IonError], bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    heartbeat: bytes = b""
    silence_seconds: float = 15.0


class Streamed(Response[Any]):
    """Sends each part at once. `parts` are closed at the end, and cancelled where the client leaves or a stop's grace
    is over; what they raise is told in the stream."""

    def __init__(self, parts: AsyncGenerator[Any, None], how: Format, first: Any = _NO_PART) -> None:
        super().__init__(None, media_type=how.media_type, headers=dict(how.headers))
        self._parts, self._how, self._first = parts, how, first

    @classmethod
    async def begun(cls, request: Request[Any, Any, Any], parts: AsyncGenerator[Any, None], how: Format) -> Self:
        """The answer, as soon as its first part is there. What `parts` raise before that is raised here."""
        async with cancelled_when_client_leaves(request.scope, request.receive):
            return cls(parts, how, await anext(parts, _NO_PART))

    def to_asgi_response(self, *_: Any, **__: Any) -> ASGIResponse:
        return _Sender(self._parts, self._how, self._first, dict(self.headers))


class _Sender(ASGIResponse):
    __slots__ = ("_first", "_how", "_parts", "_silent_since", "_started")
    _should_set_content_length = False

    def __init__(self, parts: AsyncGenerator[Any, None], how: Format, first: Any, headers: dict[str, str]) -> None:
        super().__init__(headers=headers, media_type=how.media_type)
        self._parts, self._how, self._first = parts, how, first
        self._started = False
        self._silent_since: float | None = None  # None while something is being sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with exchange.open_stream():
            await self._send_all(scope, receive, send)

    async def _send_all(self, scope: Scope, receive: Receive, send: Send) -> None:
        watcher = asyncio.create_task(self._watch(scope, receive, send, asyncio.current_task()))
        try:
            async with aclosing(self._parts):
                await self.start_response(send)
                self._started = True
                whole = await self._send_parts(send)
                watcher.cancel()  # whose heartbeat may not come after the end
                if whole:
                    await _end(send)
        except asyncio.CancelledError:
            if self._started and not is_settled(scope):
                await self._break_off(scope, send)
            raise
        finally:
            watcher.cancel()

    async def _send_parts(self, send: Send) -> bool:
        """Whether the stream has come to an end that its reader can tell."""
        try:
            if self._first is not _NO_PART:
                await self._say(send, self._first)
                self._first = _NO_PART
            async for part in self._parts:
                await self._say(send, part)
        except Exception as error:
            told = as_told(error, "a stream")
            exchange.current().note_break(told.reason_name, status_of(told))
            _log.warning("stream broke off", extra={"reason": told.reason_name})
            if self._how.failed is None:
                return False
            await _send_piece(send, self._how.failed(told))
        return True

    async def _say(self, send: Send, part: Any) -> None:
        self._silent_since = None
        exchange.current().note_event()
        await _send_piece(send, self._how.encode(part))
        self._silent_since = time.monotonic()

    async def _break_off(self, scope: Scope, send: Send) -> None:
        """The process stops and cannot wait any longer."""
        if self._how.failed is None:
            return
        settle(scope)
        interrupted = IonError(Reason.REASON_MODEL_INTERRUPTED)
        exchange.current().note_break(interrupted.reason_name, status_of(interrupted))
        await _send_piece(send, self._how.failed(interrupted))
        await _end(send)

    async def _watch(self, scope: Scope, receive: Receive, send: Send, answering: asyncio.Task[Any] | None) -> None:
        """Send heartbeats until the client leaves, then cancel the answer: one task for both, as there may be thousands
        of streams."""
        while not await self._left_within(receive, self._silence_left_seconds()):
            if self._how.heartbeat and self._silence_left_seconds() == 0:
                await self._beat(send)
        if answering:
            settle(scope)
            answering.cancel()

    async def _left_within(self, receive: Receive, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return (await receive())["type"] == "http.disconnect"
        except TimeoutError:
            return False

    def _silence_left_seconds(self) -> float | None:
        """Until a heartbeat is due; None for never."""
        if not self._how.heartbeat:
            return None
        if self._silent_since is None:
            return self._how.silence_seconds
        return max(0.0, self._silent_since + self._how.silence_seconds - time.monotonic())

    async def _beat(self, send: Send) -> None:
        await _send_piece(send, self._how.heartbeat)
        self._silent_since = time.monotonic()


async def _send_piece(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _end(send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})
