"""POST /chat, whole and as events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio

from chassis.caller import Admitted, Caller, Shown
from chassis.errors import IonError
from gateway_http import apology
from ion.error.v1.reason_pb2 import Failure, Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from tests.gateway_http.serving import ScriptedRouter, choice, forever, gateway, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVENTS = {"Accept": "text/event-stream"}
USAGE = llm_pb2.Usage(input_tokens=10, output_tokens=20, thinking_tokens=3, cached_input_tokens=5)
GENERATION = llm_pb2.Generation(
    model="m",
    location="here",
    attempts=1,
    cache=llm_pb2.CACHE_STATUS_MISS,
    finish_reason=llm_pb2.FINISH_REASON_STOP,
    usage=USAGE,
)
TIMINGS = router_pb2.Timings(analysis_micros=1500, routing_micros=250, llm_micros=3000, history_micros=4000)


def text(*pieces: str) -> list[router_pb2.ChatStreamResponse]:
    return [router_pb2.ChatStreamResponse(text=piece) for piece in pieces]


def routed() -> router_pb2.ChatStreamResponse:
    return router_pb2.ChatStreamResponse(routed=router_pb2.Routed(**choice()))


def done(**fields: Any) -> router_pb2.ChatStreamResponse:
    end = router_pb2.ChatDone(**{"generation": GENERATION, "timings": TIMINGS} | fields)
    return router_pb2.ChatStreamResponse(done=end)


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    """All frames, each an event line and one data line."""
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in response.text.split("\n\n") if frame and not frame.startswith(":")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]


class CountingDoor:
    """Lets everybody in, and notes what is charged."""

    def __init__(self) -> None:
        self.charged: list[tuple[str, int]] = []

    async def admit(self, shown: Shown) -> Admitted:
        return Admitted(Caller("key:1", ""), {"RateLimit-Limit": "30"})

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None:
        self.charged.append((admitted.caller.principal, tokens))


@dataclass
class Chat:
    """A gateway for all tests of this file, with a router to script."""

    http: httpx.AsyncClient
    router: ScriptedRouter
    door: CountingDoor

    async def ask(self, *, headers: dict[str, str] = EVENTS, **body: Any) -> httpx.Response:
        return await self.http.post("/chat", json={"message": "hello"} | body, headers=headers)

    async def stream(self, *script: Any, **body: Any) -> list[tuple[str, Any]]:
        self.router.script["ChatStream"] = list(script)
        return events(await self.ask(**body))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Chat]:
    door = CountingDoor()
    async with gateway({}, door) as (running, router):
        yield Chat(running.http, router, door)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def away() -> AsyncIterator[Chat]:
    """One whose router is not there."""
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel, serving(channel) as running:
        yield Chat(running.http, ScriptedRouter(), CountingDoor())


@pytest.fixture
def chat(started: Chat) -> Chat:
    started.router.reset()
    started.door.charged.clear()
    return started


async def test_a_whole_answer_says_who_why_and_what_became_of_the_turn(chat):
    answer = router_pb2.ChatResponse(
        content="hi",
        generation=GENERATION,
        timings=TIMINGS,
        session_id="s",
        history=router_pb2.HISTORY_STATUS_STORED,
        **choice(),
    )
    chat.router.script["Chat"] = answer
    response = await chat.ask(headers={}, user_id="u", session_id="s", persona="lua", previous_persona="nana")
    body = response.json()
    assert (body["content"], body["persona_used"], body["session_id"]) == ("hi", "Lua", "s")
    metadata = body["metadata"]
    assert metadata["intent"] == {"primary": "inquiry", "confidence": 0.7}
    assert metadata["history"] == "stored"
    assert metadata["llm"]["cache"] == response.headers["X-Cache"] == "miss"
    assert response.headers["Server-Timing"] == "analysis;dur=1.5, routing;dur=0.25, llm;dur=3, history;dur=4"
    (asked,) = chat.router.requests["Chat"]
    assert (asked.message, asked.user_id, asked.session_id) == ("hello", "u", "s")
    assert (asked.persona, asked.previous_persona) == ("lua", "nana")


async def test_without_a_session_nothing_is_said_of_history(chat):
    answer = router_pb2.ChatResponse(content="hi", timings=router_pb2.Timings(llm_micros=1), **choice())
    chat.router.script["Chat"] = answer
    response = await chat.ask(headers={})
    assert "history" not in response.json()["metadata"]
    assert "history" not in response.headers["Server-Timing"]


async def test_events_in_their_order(chat):
    end = done(history=router_pb2.HISTORY_STATUS_STORED, session_id="s")
    found = await chat.stream(routed(), *text("안녕", "하세요"), end, session_id="s")
    (first, choice_event), *deltas, (last, end) = found
    assert (first, last) == ("routing", "done")
    assert deltas == [("delta", {"text": "안녕"}), ("delta", {"text": "하세요"})]
    who = {"persona_used": "Lua", "resonance_key": "calm-flowing-inquiry", "confidence": 0.9, "session_id": "s"}
    assert who.items() <= choice_event.items()
    assert who.items() <= end.items()
    assert set(choice_event["metadata"]) == {"rhythm", "tone", "intent", "routing", "read_by"}
    assert end["metadata"]["llm"]["usage"]["output_tokens"] == 20
    assert end["metadata"]["history"] == "stored"
    assert end["timings"] == {"analysis_ms": 1.5, "routing_ms": 0.25, "llm_ms": 3.0, "history_ms": 4.0}


async def test_headers_of_a_stream(chat):
    chat.router.script["ChatStream"] = [routed(), done()]
    headers = (await chat.ask()).headers
    assert headers["cache-control"] == "no-cache, no-transform"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-request-id"]


@pytest.mark.parametrize(
    ("accept", "streams"),
    [
        ("text/event-stream", True),
        ("application/json, text/event-stream", True),
        ("application/json;q=0.5, text/event-stream", True),
        ("application/json, text/event-stream;q=0.5", False),
        ("text/event-stream;q=0", False),
        ("*/*", False),
        ("application/json", False),
    ],
)
async def test_events_are_for_those_who_ask_for_them(chat, accept, streams):
    whole = router_pb2.ChatResponse(content="hi", **choice())
    chat.router.script |= {"Chat": whole, "ChatStream": [routed(), done()]}
    response = await chat.ask(headers={"Accept": accept})
    assert response.headers["content-type"].startswith("text/event-stream") == streams


async def test_an_apology_is_told_at_the_end_by_whoever_apologises(chat):
    nana = router_pb2.Routing(persona="Nana", resonance_key=apology.KEY, reasoning="Nana apologises.")
    failure = Failure(reason=Reason.REASON_MODEL_UNAVAILABLE, retryable=True)
    end = router_pb2.ChatDone(fallback=True, failure=failure, routing=nana, history=router_pb2.HISTORY_STATUS_SKIPPED)
    found = await chat.stream(routed(), *text("sorry"), router_pb2.ChatStreamResponse(done=end))
    assert [name for name, _ in found] == ["routing", "delta", "done"]
    last = found[-1][1]
    assert (last["persona_used"], last["resonance_key"], last["confidence"]) == ("Nana", apology.KEY, 0.0)
    metadata = last["metadata"]
    assert metadata["fallback"] is True
    assert metadata["error"] == {"reason": "MODEL_UNAVAILABLE", "retryable": True}
    assert metadata["history"] == "skipped"
    assert metadata["routing"]["reasoning"] == "Nana apologises."
    assert "llm" not in metadata


@pytest.mark.parametrize(
    ("script", "reason", "retryable"),
    [
        ([], "MODEL_INTERRUPTED", True),
        ([IonError(Reason.REASON_MODEL_INTERRUPTED)], "MODEL_INTERRUPTED", True),
        ([IonError(Reason.REASON_DEADLINE_EXCEEDED)], "DEADLINE_EXCEEDED", True),
        ([IonError(Reason.REASON_INTERNAL)], "INTERNAL", False),
    ],
)
async def test_a_stream_without_its_done_ends_with_an_error(chat, script, reason, retryable):
    found = await chat.stream(routed(), *text("half"), *script)
    assert [name for name, _ in found] == ["routing", "delta", "error"]
    last = found[-1][1]
    assert (last["reason"], last["retryable"]) == (reason, retryable)
    assert last["detail"]
    assert last["request_id"]


async def test_an_error_says_when_to_come_again(chat):
    error = IonError(Reason.REASON_OVERLOADED, retry_after_seconds=2.5)
    assert (await chat.stream(routed(), error))[-1][1]["retry_after_seconds"] == 2.5


async def test_a_router_that_dies_has_interrupted_the_reply(chat):
    async def dies(_: Any):
        yield routed()
        yield text("half")[0]
        raise IonError(Reason.REASON_ROUTER_UNAVAILABLE)

    chat.router.script["ChatStream"] = dies
    found = events(await chat.ask())
    assert found[-1][0] == "error"
    assert found[-1][1]["reason"] == "MODEL_INTERRUPTED"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (IonError(Reason.REASON_OVERLOADED), 503),
        (IonError(Reason.REASON_PERSONA_NOT_FOUND), 404),
        (IonError(Reason.REASON_MESSAGE_BLANK), 422),
        (IonError(Reason.REASON_RATE_LIMITED), 429),
    ],
)
async def test_what_fails_before_the_first_event_is_an_http_error(chat, error, status):
    chat.router.script["ChatStream"] = [error]
    response = await chat.ask()
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.json()["request_id"]


@pytest.mark.parametrize("message", ["hello", "안녕하세요"])
@pytest.mark.parametrize("headers", [EVENTS, {}])
async def test_a_router_that_is_away_is_apologised_for(away, headers, message):
    response = await away.ask(headers=headers, message=message, session_id="s")
    sorry = apology.KOREAN if message != "hello" else apology.ENGLISH
    if not headers:
        told = response.json()
        assert told["content"] == sorry
    else:
        (_, first), (_, delta), (name, told) = events(response)
        assert (first["persona_used"], first["resonance_key"], name) == ("Nana", apology.KEY, "done")
        assert delta == {"text": sorry}
        assert told["timings"] == {"analysis_ms": 0.0, "routing_ms": 0.0, "llm_ms": 0.0, "history_ms": 0.0}
    assert (told["persona_used"], told["confidence"], told["session_id"]) == ("Nana", 0.0, "s")
    metadata = told["metadata"]
    assert metadata["error"] == {"reason": "ROUTER_UNAVAILABLE", "retryable": True}
    assert metadata["history"] == "skipped"


async def test_a_router_that_is_late_is_apologised_for(chat):
    chat.router.script["ChatStream"] = forever
    found = events(await chat.ask(headers=EVENTS | {"X-Request-Timeout": "0.2"}))
    assert found[-1][1]["metadata"]["error"]["reason"] == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("headers", [EVENTS, {}])
async def test_cache_control_goes_on_to_the_router(chat, headers):
    script = {"Chat": router_pb2.ChatResponse(content="hi", **choice()), "ChatStream": [routed(), done()]}
    chat.router.script.update(script)
    await chat.ask(headers=headers | {"Cache-Control": "no-cache, no-store, max-age=60"})
    await chat.ask(headers=headers)
    first, second = chat.router.requests["ChatStream" if headers else "Chat"]
    assert first.cache_control == llm_pb2.CacheControl(bypass=True, no_store=True, max_age_seconds=60)
    assert not second.HasField("cache_control")


@pytest.mark.parametrize("headers", [EVENTS, {}])
@pytest.mark.parametrize(("attempts", "charged"), [(1, [("key:1", 33)]), (0, [])])
async def test_used_tokens_are_charged_when_a_model_was_asked(chat, headers, attempts, charged):
    generation = llm_pb2.Generation(attempts=attempts, usage=USAGE)
    whole = router_pb2.ChatResponse(content="hi", generation=generation, **choice())
    chat.router.script |= {"Chat": whole, "ChatStream": [routed(), done(generation=generation)]}
    response = await chat.ask(headers=headers)
    assert response.headers["RateLimit-Limit"] == "30"
    assert chat.door.charged == charged


async def test_a_stream_is_charged_at_its_end(chat):
    goes_on = asyncio.Event()

    async def slow(_: Any):
        yield routed()
        await goes_on.wait()
        yield done()

    chat.router.script["ChatStream"] = slow
    async with chat.http.stream("POST", "/chat", json={"message": "hi"}, headers=EVENTS) as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "event: routing"
        assert chat.door.charged == []
        goes_on.set()
        assert [line async for line in lines if line.startswith("event:")] == ["event: done"]
    assert chat.door.charged == [("key:1", 33)]


SAID = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/chat", {"message": "hi"}, EVENTS),
        (
            "/v1/chat/completions",
            {"model": "ion-auto", "messages": [{"role": "user", "content": "hi"}], "stream": True},
            {},
        ),
    ],
)
async def test_whoever_leaves_before_the_end_is_charged_for_what_came(chat, path, body, headers):
    async def hangs(_: Any):
        yield routed()
        for piece in text("x" * 100):
            yield piece
        await asyncio.Event().wait()

    chat.router.script["ChatStream"] = hangs
    async with chat.http.stream("POST", path, json=body, headers=headers) as response:
        async for line in response.aiter_lines():
            if "x" * 100 in line:
                break
    async with asyncio.timeout(5):
        while not chat.door.charged:
            await asyncio.sleep(0.002)
    assert chat.door.charged == [("key:1", 50)]


@pytest.mark.parametrize("waits_for", ["the first event", "the next event"])
async def test_a_client_that_leaves_cancels_the_call_at_once(chat, waits_for):
    begun = asyncio.Event()

    async def hangs(_: Any):
        if waits_for == "the next event":
            yield routed()
        begun.set()
        await asyncio.Event().wait()

    chat.router.script["ChatStream"] = hangs
    asking = asyncio.create_task(chat.ask())
    await begun.wait()
    asking.cancel()
    async with asyncio.timeout(5):
        await chat.router.cancelled.wait()
