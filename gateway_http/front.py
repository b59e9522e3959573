"""What every HTTP exchange passes: request ids, trace context, the door, media type, security headers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec
from litestar.types import ASGIApp, Message, Receive, Send

from chassis.caller import Door, OpenDoor, Shown, enter
from chassis.errors import IonError
from chassis.observability import tracing
from gateway_http import errors
from gateway_http.departure import forget_cancellation, is_settled
from gateway_http.exchange import Exchange
from gateway_http.openai import errors as openai
from gateway_http.schemas import Problem

SECURITY_HEADERS: Final[tuple[tuple[bytes, bytes], ...]] = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000; includeSubDomains"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
)
_JSON: Final = b"application/json"
# What `curl -d` sends when nothing else is said; read as JSON like a body without a type.
_CURL_DEFAULT: Final = b"application/x-www-form-urlencoded"
_WANTED_HEADERS: Final = frozenset(
    {b"x-request-id", b"traceparent", b"tracestate", b"baggage", b"authorization", b"x-api-key"}
)
_PUBLIC: Final = frozenset({"/", "/health", "/livez", "/readyz", "/docs", "/openapi.json"})
_PUBLIC_FOLDERS: Final = ("/docs/", "/assets/")
# Ids in these may hold slashes: their routes decode what they take from the path.
_ENCODED_PATHS: Final = ("/sessions/",)


class Front:
    """Wraps the application. Callers come in by the door; to public paths everybody does. `writes_lines`: the log has
    one of each exchange. `paths`: those of routes without parameters, by which is told what was refused here."""

    def __init__(
        self, app: ASGIApp, door: Door, *, paths: frozenset[str] = frozenset(), writes_lines: bool = False
    ) -> None:
        self._app = app
        self._paths = paths
        self._writes_lines = writes_lines
        self._door = None if isinstance(door, OpenDoor) else door  # nothing to ask, nothing to count

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _wanted_headers(scope["headers"])
        tracing.enter(
            headers.get(b"x-request-id"),
            headers.get(b"traceparent"),
            headers.get(b"tracestate", ""),
            headers.get(b"baggage", ""),
        )
        with Exchange(scope, has_line=self._writes_lines) as exchange:
            if self._door is None or is_public(scope["path"]):
                await self._answer(scope, receive, _sender(send, exchange))
            else:
                await self._admit(self._door, _shown(headers, scope), exchange, scope, receive, send)

    async def _admit(
        self, door: Door, shown: Shown, exchange: Exchange, scope: Any, receive: Receive, send: Send
    ) -> None:
        """What the caller has used is charged when its answer is complete, or nobody waits for it any longer."""
        try:
            admitted = await door.admit(shown)
        except Exception as error:
            told = errors.as_told(error, "the door")
            exchange.failure = told.reason_name
            self._note_route(scope)
            await _refuse(told, scope, _sender(send, exchange))
            return
        meter = enter(admitted.caller)
        try:
            await self._answer(scope, receive, _sender(send, exchange, admitted.headers))
        finally:
            if meter.tokens:
                door.charge(shown, admitted, meter.tokens)

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and not _takes_json(scope):
            self._note_route(scope)
            await _refuse_media_type(scope, send)
            return
        if scope["path"].startswith(_ENCODED_PATHS):
            scope["path"] = scope["raw_path"].decode("ascii")
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not is_settled(scope):
                raise
            forget_cancellation()

    def _note_route(self, scope: Any) -> None:
        """As the application notes it of what reaches it."""
        path = scope["path"].rstrip("/") or "/"
        if path in self._paths:
            scope["path_template"] = path


def _wanted_headers(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, str]:
    return {name: value.decode("latin-1") for name, value in headers if name in _WANTED_HEADERS}


def is_public(path: str) -> bool:
    return path in _PUBLIC or path.startswith(_PUBLIC_FOLDERS)


def _shown(headers: Mapping[bytes, str], scope: Any) -> Shown:
    client = scope.get("client")
    return Shown(headers.get(b"authorization", ""), headers.get(b"x-api-key", ""), client[0] if client else "")


def _takes_json(scope: Any) -> bool:
    """Whether the body may be JSON; a type that only means "unsaid" is put right for the framework."""
    headers = scope["headers"]
    given = next((value for name, value in headers if name == b"content-type"), _CURL_DEFAULT)
    media_type = given.split(b";", 1)[0].strip().lower()
    if media_type == _CURL_DEFAULT:
        scope["headers"] = [pair for pair in headers if pair[0] != b"content-type"] + [(b"content-type", _JSON)]
        return True
    return media_type == _JSON or (media_type.startswith(b"application/") and media_type.endswith(b"+json"))


def _sender(send: Send, exchange: Exchange, more: Mapping[str, str] | None = None) -> Send:
    """With the headers that all answers have; the exchange is told of what was sent."""
    call = tracing.current()
    own = (
        (b"x-request-id", call.request_id.encode()),
        (b"traceparent", call.traceparent.encode()),
        *SECURITY_HEADERS,
    )
    if more:
        own += tuple((name.lower().encode(), value.encode()) for name, value in more.items())

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in given)]
            exchange.status = message["status"]
        await send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            exchange.is_complete = True

    return send_with_headers


async def _refuse(error: IonError, scope: Any, send: Send) -> None:
    if openai.is_openai(scope["path"]):
        await _send_json(send, *openai.refusal(error))
        return
    problem = Problem(error.message, error.reason_name, tracing.current().request_id)
    await _send_json(send, errors.status_of(error), errors.headers_of(error), problem)


async def _refuse_media_type(scope: Any, send: Send) -> None:
    detail, reason = "Send the body as application/json.", "UNSUPPORTED_MEDIA_TYPE"
    if openai.is_openai(scope["path"]):
        await _send_json(send, 415, {}, openai.problem(415, detail, reason))
        return
    await _send_json(send, 415, {}, Problem(detail, reason, tracing.current().request_id))


async def _send_json(send: Send, status: int, headers: Mapping[str, str], content: Any) -> None:
    body = msgspec.json.encode(content)
    own = [(b"content-type", _JSON), (b"content-length", str(len(body)).encode())]
    given = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": own + given})
    await send({"type": "http.response.body", "body": body, "more_body": False})
