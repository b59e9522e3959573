"""One call: over HTTP, or over gRPC. Neither raises where it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Final, Protocol

import httpx
import httpx_sse
import msgspec

from chassis import caller
from chassis.channel import open_channel
from chassis.errors import IonError, reason_name
from chassis.transport import PLAIN, Transport
from gateway_http import translation
from gateway_http.router_client import RouterClient
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from standalone.client import Router
from standalone.load.plan import Manner
from standalone.load.tally import Answer, now


class Called(Protocol):
    """A running ION."""

    async def ask(self, message: str, session_id: str) -> Answer: ...

    async def forget(self, session_id: str) -> None:
        """Delete the session, where there is one."""
        ...


OpenCalled = Callable[[], AbstractAsyncContextManager[Called]]


# HTTP

_EVENTS: Final = {"Accept": "text/event-stream"}


@asynccontextmanager
async def open_http(url: str, manner: Manner, *, callers: int, trust_env: bool) -> AsyncIterator[Called]:
    """`trust_env`: whether proxies that the environment names are used."""
    headers = {b"X-User-Id": manner.user_id.encode()}
    if manner.bypass_cache:
        headers[b"Cache-Control"] = b"no-cache"
    if manner.authorization:
        headers[b"Authorization"] = manner.authorization.encode()
    limits = httpx.Limits(max_connections=callers, max_keepalive_connections=callers)
    async with httpx.AsyncClient(
        base_url=url,
        headers=httpx.Headers(list(headers.items())),
        limits=limits,
        timeout=manner.timeout_seconds,
        trust_env=trust_env,
    ) as client:
        yield _Http(client, manner)


class _Http:
    def __init__(self, client: httpx.AsyncClient, manner: Manner) -> None:
        self._client = client
        self._manner = manner
        self._ask = self._ask_for_events if manner.stream else self._ask_at_once

    async def ask(self, message: str, session_id: str) -> Answer:
        given = {"message": message, "session_id": session_id, "user_id": self._manner.user_id}
        body = {name: value for name, value in given.items() if value}
        try:
            async with asyncio.timeout(self._manner.timeout_seconds):
                return await self._ask(body)
        except (TimeoutError, httpx.TimeoutException):
            return Answer("TIMEOUT")
        except httpx.ConnectError:
            return Answer("UNREACHABLE")
        except (httpx.TransportError, httpx_sse.SSEError):
            return Answer("BROKEN_OFF")
        except (httpx.HTTPError, msgspec.MsgspecError, KeyError, TypeError):
            return Answer("NOT_AN_ANSWER")

    async def _ask_at_once(self, body: dict[str, str]) -> Answer:
        response = await self._client.post("/chat", json=body)
        if response.status_code != httpx.codes.OK:
            return Answer(_reason(response))
        return _answer(msgspec.json.decode(response.content))

    async def _ask_for_events(self, body: dict[str, str]) -> Answer:
        # Not httpx_sse.aconnect_sse: it sends a Cache-Control of its own, which ION would obey.
        async with self._client.stream("POST", "/chat", json=body, headers=_EVENTS) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                return Answer(_reason(response))
            return await _read_events(httpx_sse.EventSource(response))

    async def forget(self, session_id: str) -> None:
        await self._client.delete(f"/sessions/{session_id}")


async def _read_events(source: httpx_sse.EventSource) -> Answer:
    """To the end, so that the connection can be used again."""
    first_text_at, answer = None, Answer("BROKEN_OFF")
    async for event in source.aiter_sse():
        if event.event == "delta":
            first_text_at = first_text_at or now()
        elif event.event == "done":
            answer = _answer(msgspec.json.decode(event.data), first_text_at)
        elif event.event == "error":
            answer = Answer(str(msgspec.json.decode(event.data)["reason"]))
    return answer


def _answer(body: Any, first_text_at: float | None = None) -> Answer:
    metadata = body["metadata"]
    if metadata.get("fallback"):
        return Answer(str(metadata["error"]["reason"]))
    return Answer(
        persona=str(body["persona_used"]),
        cache=str(metadata["llm"]["cache"]),
        history=str(metadata.get("history", "")),
        first_text_at=first_text_at,
    )


def _reason(response: httpx.Response) -> str:
    """What ION says, or what HTTP does where somebody else answers."""
    try:
        return str(msgspec.json.decode(response.content)["reason"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return f"HTTP_{response.status_code}"


# gRPC

_BYPASS: Final = llm_pb2.CacheControl(bypass=True)
_HISTORY: Final[dict[int, str]] = {
    router_pb2.HISTORY_STATUS_STORED: "stored",
    router_pb2.HISTORY_STATUS_UNAVAILABLE: "unavailable",
    router_pb2.HISTORY_STATUS_SKIPPED: "skipped",
}


@asynccontextmanager
async def open_grpc(target: str, manner: Manner, transport: Transport = PLAIN) -> AsyncIterator[Called]:
    if manner.authorization:
        caller.show((caller.AUTHORIZATION_KEY, manner.authorization))
    async with open_channel(target, transport) as channel:
        yield _Grpc(Router(RouterClient(channel, target=target), manner.timeout_seconds), manner)


class _Grpc:
    def __init__(self, router: Router, manner: Manner) -> None:
        self._router = router
        self._manner = manner
        self._ask = self._ask_for_events if manner.stream else self._ask_at_once

    async def ask(self, message: str, session_id: str) -> Answer:
        try:
            return await self._ask(self._fields(message, session_id))
        except IonError as error:
            return Answer(error.reason_name)

    async def _ask_at_once(self, fields: dict[str, Any]) -> Answer:
        response = await self._router.chat(router_pb2.ChatRequest(**fields))
        return _grpc_answer(response, response.routing)

    async def _ask_for_events(self, fields: dict[str, Any]) -> Answer:
        first_text_at, routing, answer = None, router_pb2.Routing(), Answer("BROKEN_OFF")
        async with aclosing(self._router.chat_stream(router_pb2.ChatStreamRequest(**fields))) as events:
            async for event in events:
                if event.HasField("routed"):
                    routing = event.routed.routing
                elif event.HasField("done"):
                    answer = _grpc_answer(event.done, routing, first_text_at)
                else:
                    first_text_at = first_text_at or now()
        return answer

    async def forget(self, session_id: str) -> None:
        await self._router.delete_session(session_id, self._manner.user_id)

    def _fields(self, message: str, session_id: str) -> dict[str, Any]:
        fields = {"message": message, "session_id": session_id, "user_id": self._manner.user_id}
        return fields | ({"cache_control": _BYPASS} if self._manner.bypass_cache else {})


def _grpc_answer(
    end: router_pb2.ChatResponse | router_pb2.ChatDone, routing: router_pb2.Routing, first_text_at: float | None = None
) -> Answer:
    if end.fallback:
        return Answer(reason_name(end.failure.reason))
    return Answer(
        persona=routing.persona,
        cache=translation.cache_name(end),
        history=_HISTORY.get(end.history, ""),
        first_text_at=first_text_at,
    )
