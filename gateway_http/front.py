"""What every HTTP exchange passes: request ids, trace context, media type, security headers, clients that leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from litestar.types import ASGIApp, Message, Receive, Scope, Send
from opentelemetry.trace import SpanKind

from chassis import telemetry
from gateway_http.errors import problem_bytes

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
_CLIENT_LEFT: Final = "ion_client_left"


class Front:
    """Wraps the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = _wanted_headers(scope["headers"])
        telemetry.enter(headers.get(b"x-request-id"), headers.get(b"traceparent"))
        with telemetry.span(f"{scope['method']} {scope['path']}", SpanKind.SERVER):
            await self._answer(scope, receive, _sender(send, telemetry.current()))

    async def _answer(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST" and not _takes_json(scope):
            await _refuse_media_type(send)
            return
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if _CLIENT_LEFT not in scope.get("state", {}):
                raise
            _forget_cancellation()


def _wanted_headers(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[bytes, str]:
    wanted = (b"x-request-id", b"traceparent")
    return {name: value.decode("latin-1") for name, value in headers if name in wanted}


def _takes_json(scope: Any) -> bool:
    """Whether the body may be JSON; a type that only means "unsaid" is put right for the framework."""
    headers = scope["headers"]
    given = next((value for name, value in headers if name == b"content-type"), _CURL_DEFAULT)
    media_type = given.split(b";", 1)[0].strip().lower()
    if media_type == _CURL_DEFAULT:
        scope["headers"] = [pair for pair in headers if pair[0] != b"content-type"] + [(b"content-type", _JSON)]
        return True
    return media_type == _JSON or (media_type.startswith(b"application/") and media_type.endswith(b"+json"))


def _sender(send: Send, call: telemetry.CallContext) -> Send:
    own = (
        (b"x-request-id", call.request_id.encode()),
        (b"traceparent", call.traceparent.encode()),
        *SECURITY_HEADERS,
    )

    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in given)]
        await send(message)

    return send_with_headers


async def _refuse_media_type(send: Send) -> None:
    body = problem_bytes("Send the body as application/json.", "UNSUPPORTED_MEDIA_TYPE")
    headers = [(b"content-type", _JSON), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 415, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@asynccontextmanager
async def cancelled_when_client_leaves(scope: Scope, receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client closes the connection. The request's body must have been read."""
    task = asyncio.current_task()
    watcher = asyncio.create_task(_wait_for_disconnect(receive))

    def cancel(done: asyncio.Task[None]) -> None:
        if task and not done.cancelled():
            scope["state"][_CLIENT_LEFT] = True
            task.cancel()

    watcher.add_done_callback(cancel)
    try:
        yield
    finally:
        watcher.remove_done_callback(cancel)
        watcher.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _forget_cancellation() -> None:
    task = asyncio.current_task()
    if task:
        task.uncancel()
