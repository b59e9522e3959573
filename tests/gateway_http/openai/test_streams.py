"""The parts of a router's stream as chunks: nothing before the first text, and an end only where there is one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest

from chassis import caller
from chassis.caller import Caller
from chassis.deadline import Deadline
from chassis.errors import IonError
from gateway_http.openai import streams
from gateway_http.openai.streams import STREAM, events
from ion.error.v1 import reason_pb2
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2

Parts = Sequence[router_pb2.ChatStreamResponse | Exception]
ROUTED = router_pb2.ChatStreamResponse(
    routed=router_pb2.Routed(
        routing=router_pb2.Routing(
            persona="Lua", confidence=0.5, scores=[router_pb2.PersonaScore(persona="Lua", score=0.5)]
        )
    )
)
BROKEN = IonError(Reason.REASON_MODEL_INTERRUPTED)


def text(value: str) -> router_pb2.ChatStreamResponse:
    return router_pb2.ChatStreamResponse(text=value)


def done(**fields: Any) -> router_pb2.ChatStreamResponse:
    generation = llm_pb2.Generation(
        cache=llm_pb2.CACHE_STATUS_MISS, attempts=1, usage=llm_pb2.Usage(input_tokens=3, output_tokens=2)
    )
    return router_pb2.ChatStreamResponse(done=router_pb2.ChatDone(**{"generation": generation} | fields))


class ScriptedRouter:
    """Streams the parts, and fails where one is an error."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.closed = False

    async def chat_stream(self, *_: Any) -> AsyncGenerator[router_pb2.ChatStreamResponse, None]:
        try:
            for part in self.parts:
                if isinstance(part, Exception):
                    raise part
                yield part
        finally:
            self.closed = True


async def said(router: ScriptedRouter, *, include_usage: bool = False) -> tuple[list[Any], IonError | None]:
    """The data of the events, and how they ended if not well."""
    came: list[Any] = []
    stream = events(router, router_pb2.ChatStreamRequest(), Deadline.after(5), include_usage=include_usage)
    try:
        async for event in stream:
            assert event.name == ""
            came.append(event.data)
    except IonError as error:
        return came, error
    return came, None


async def test_a_whole_answer():
    meter = caller.enter(Caller())
    router = ScriptedRouter([ROUTED, text("a"), text("b"), done()])
    (opening, *texts, end, last), error = await said(router)
    assert error is None
    assert last == b"[DONE]"
    assert (opening.choices[0].delta.role, opening.model) == ("assistant", "ion-lua")
    assert [chunk.choices[0].delta.content for chunk in texts] == ["a", "b"]
    assert (end.choices[0].finish_reason, end.ion.cache) == ("stop", "miss")
    assert meter.tokens == 5
    assert router.closed


@pytest.mark.parametrize("reason", [Reason.REASON_OVERLOADED, Reason.REASON_ROUTER_UNAVAILABLE])
@pytest.mark.parametrize("before", [[], [ROUTED]])
async def test_a_failure_before_the_first_text_comes_before_any_event(before, reason):
    came, error = await said(ScriptedRouter([*before, IonError(reason)]))
    assert came == []
    assert error.reason == reason


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (Reason.REASON_MODEL_INTERRUPTED, Reason.REASON_MODEL_INTERRUPTED),
        (Reason.REASON_ROUTER_UNAVAILABLE, Reason.REASON_MODEL_INTERRUPTED),
        (Reason.REASON_DEADLINE_EXCEEDED, Reason.REASON_DEADLINE_EXCEEDED),
        (Reason.REASON_MODEL_BLOCKED, Reason.REASON_MODEL_BLOCKED),
    ],
)
async def test_a_failure_after_the_first_text_is_raised_without_an_end(reason, told):
    came, error = await said(ScriptedRouter([ROUTED, text("a"), IonError(reason)]))
    assert [choice.finish_reason for chunk in came for choice in chunk.choices] == [None, None]
    assert error.reason == told


async def test_a_stream_without_its_done_is_broken_off():
    came, error = await said(ScriptedRouter([ROUTED, text("a")]))
    assert error.reason == Reason.REASON_MODEL_INTERRUPTED
    assert b"[DONE]" not in came


async def test_what_broke_off_is_told_as_an_error_that_clients_raise():
    assert STREAM.failed(BROKEN).startswith(b'data: {"error":{"message":')


async def test_what_the_filters_block_has_an_end():
    came, error = await said(ScriptedRouter([ROUTED, IonError(Reason.REASON_MODEL_BLOCKED)]), include_usage=True)
    opening, end, usage, last = came
    assert error is None
    assert (opening.model, end.choices[0].finish_reason, usage.choices) == ("ion-lua", "content_filter", [])
    assert last == b"[DONE]"


async def test_the_apology_of_an_older_router_is_a_failure():
    failure = reason_pb2.Failure(reason=Reason.REASON_MODEL_UNAVAILABLE)
    came, error = await said(ScriptedRouter([ROUTED, text("Sorry."), done(fallback=True, failure=failure)]))
    assert error.reason == Reason.REASON_MODEL_UNAVAILABLE
    assert b"[DONE]" not in came


async def test_who_stops_reading_closes_the_call():
    router = ScriptedRouter([ROUTED, text("a"), text("b"), done()])
    stream = streams.events(router, router_pb2.ChatStreamRequest(), Deadline.after(5), include_usage=False)
    await anext(stream)
    await stream.aclose()
    assert router.closed
