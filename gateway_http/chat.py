"""Chat: one answer, whole or as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.params import JSONBody
from msgspec import UNSET

from chassis.caller import StreamedTokens, note_tokens
from chassis.deadline import Deadline
from chassis.errors import IonError
from chassis.observability import tracing
from gateway_http import apology, exchange, schemas, translation
from gateway_http.departure import cancelled_when_client_leaves
from gateway_http.event_stream import Event, event_stream
from gateway_http.negotiation import wants_event_stream
from gateway_http.parameters import TimeoutHeader, cache_control_of, deadline_of
from gateway_http.router_client import RouterClient, read_to_end
from gateway_http.streaming import Streamed
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2


def broken_off(error: IonError) -> Event:
    return Event(
        "error",
        schemas.ErrorEvent(
            error.message,
            error.reason_name,
            error.retryable,
            tracing.current().request_id,
            error.retry_after_seconds or UNSET,
        ),
    )


STREAM: Final = event_stream(broken_off)


@post("/chat", status_code=200, tags=["chat"])
async def chat(
    request: Request[Any, Any, State],
    state: State,
    data: JSONBody[schemas.ChatRequest],
    timeout_seconds: TimeoutHeader = None,
) -> Response[schemas.ChatResponse]:
    """Answer a message as the persona that fits it best, and say why. With `Accept: text/event-stream` the answer comes
    as events: `routing` at once, each `delta` of the text as the model gives it, then `done`, or `error`."""
    answer = stream if wants_event_stream(request.scope) else reply
    return await answer(request, state.router, data, deadline_of(state, timeout_seconds))


async def reply(
    request: Request[Any, Any, State], router: RouterClient, data: schemas.ChatRequest, deadline: Deadline
) -> Response[schemas.ChatResponse]:
    asked = router_pb2.ChatRequest(**_fields(request, data))
    async with cancelled_when_client_leaves(request.scope, request.receive):
        try:
            answer = await router.chat(asked, deadline.less_margin())
        except IonError as error:
            if error.reason not in apology.APOLOGISED:
                raise
            return Response(apology.reply(error, data), headers={"X-Cache": "off"})
    note_tokens(translation.used_tokens(answer.generation))
    cache = translation.cache_name(answer)
    exchange.current().note_reply(answer.routing.persona, cache, is_fallback=answer.fallback)
    headers = {"X-Cache": cache, "Server-Timing": translation.server_timing(answer.timings)}
    return Response(translation.chat_response(answer), headers=headers)


async def stream(
    request: Request[Any, Any, State], router: RouterClient, data: schemas.ChatRequest, deadline: Deadline
) -> Response[Any]:
    asked = router_pb2.ChatStreamRequest(**_fields(request, data))
    try:
        return await Streamed.begun(request, events(router, asked, deadline.less_margin()), STREAM)
    except IonError as error:
        if error.reason not in apology.APOLOGISED:
            raise
        return Streamed(apology.events(error, data), STREAM)


async def events(
    router: RouterClient, asked: router_pb2.ChatStreamRequest, deadline: Deadline
) -> AsyncGenerator[Event, None]:
    """Raises IonError where the router's stream does not come to its `done`."""
    routed, noted = router_pb2.Routed(), exchange.current()
    try:
        with StreamedTokens() as tokens:
            async with aclosing(router.chat_stream(asked, deadline)) as pieces:
                async for piece in pieces:
                    match piece.WhichOneof("event"):
                        case "text":
                            noted.note_text()
                            tokens.passed_on(piece.text)
                            yield Event("delta", schemas.DeltaEvent(piece.text))
                        case "routed":
                            routed = piece.routed
                            noted.persona = routed.routing.persona
                            yield Event("routing", translation.choice(routed, asked.session_id))
                        case "done":
                            tokens.told(translation.used_tokens(piece.done.generation))
                            _note_end(noted, piece.done, routed)
                            yield Event("done", translation.done(piece.done, routed))
                            noted.is_complete = True
                            await read_to_end(pieces)
                            return
    except IonError as error:
        if routed.HasField("routing") and error.reason == Reason.REASON_ROUTER_UNAVAILABLE:
            raise IonError(Reason.REASON_MODEL_INTERRUPTED) from error
        raise
    raise IonError(Reason.REASON_MODEL_INTERRUPTED)


def _note_end(noted: exchange.Exchange, end: router_pb2.ChatDone, routed: router_pb2.Routed) -> None:
    persona = (end.routing if end.fallback else routed.routing).persona
    noted.note_reply(persona, translation.cache_name(end), is_fallback=end.fallback)


def _fields(request: Request[Any, Any, State], data: schemas.ChatRequest) -> dict[str, Any]:
    return {
        "message": data.message,
        "user_id": data.user_id or "",
        "session_id": data.session_id or "",
        "persona": data.persona or "",
        "previous_persona": data.previous_persona or "",
        "cache_control": cache_control_of(request.scope),
    }
