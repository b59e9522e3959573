"""Answers as server-sent events over real connections: each event at once, a clean end only for a whole reply."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
import pytest
from httpx_sse import EventSource, ServerSentEvent

from tests.fake_vertex import FakeVertex
from tests.stack.harness import Chain, standalone, vertex_env

PIECES = ["one ", "two ", "three"]


@dataclass
class Stream:
    """A stream that is being read."""

    response: httpx.Response
    events: AsyncIterator[ServerSentEvent]

    async def next(self) -> tuple[str, Any]:
        event = await anext(self.events)
        return event.event, json.loads(event.data)

    async def rest(self) -> list[tuple[str, Any]]:
        return [(event.event, json.loads(event.data)) async for event in self.events]


@asynccontextmanager
async def streaming(http: httpx.AsyncClient, message: str, **members: Any) -> AsyncIterator[Stream]:
    headers = {"Accept": "text/event-stream"}
    async with http.stream("POST", "/chat", json={"message": message} | members, headers=headers) as response:
        yield Stream(response, EventSource(response).aiter_sse())


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a proxy before `url`, which passes on what there is and closes one side with the other."""
    host, port = url.removeprefix("http://").split(":")

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
        both = [asyncio.create_task(pipe(reader, upstream_writer)), asyncio.create_task(pipe(upstream_reader, writer))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        upstream_writer.close()
        writer.close()

    async with await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        front = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=front, timeout=20) as http:
            yield http


async def test_the_choice_comes_before_the_model_has_said_anything(chain: Chain, vertex: FakeVertex, unique):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(0)
    async with streaming(chain.http, unique("What is a monad?")) as stream:
        name, choice = await stream.next()
        assert name == "routing"
        assert choice["metadata"]["routing"]["scores"][choice["persona_used"]] == choice["confidence"]
        assert choice["metadata"]["intent"]["primary"]
        vertex.release()
        *deltas, (last, end) = await stream.rest()
    assert [name for name, _ in deltas] == ["delta"] * len(deltas)
    assert ("".join(delta["text"] for _, delta in deltas), last) == ("one two three", "done")
    assert (end["persona_used"], end["resonance_key"]) == (choice["persona_used"], choice["resonance_key"])
    assert end["metadata"]["llm"]["finish_reason"] == "stop"
    assert end["timings"]["llm_ms"] > 0


@pytest.mark.parametrize("through_proxy", [False, True])
async def test_each_text_is_there_while_the_model_goes_on(chain: Chain, vertex: FakeVertex, unique, through_proxy):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1)
    async with proxied(chain.url) as proxy, streaming(proxy if through_proxy else chain.http, unique("hi")) as stream:
        assert (await stream.next())[0] == "routing"
        assert await stream.next() == ("delta", {"text": "one "})
        assert vertex.calls[-1].outcome == "running"
        vertex.release()
        *deltas, (last, _) = await stream.rest()
    assert ("".join(delta["text"] for _, delta in deltas), last) == ("two three", "done")


@pytest.mark.parametrize("through_proxy", [False, True])
@pytest.mark.parametrize("pieces", [0, 1])
async def test_a_client_that_leaves_ends_the_model_s_work(
    chain: Chain, vertex: FakeVertex, unique, pieces, through_proxy
):
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(pieces)
    async with proxied(chain.url) as proxy:
        async with streaming(proxy if through_proxy else chain.http, unique("hi")) as stream:
            for _ in range(1 + pieces):
                await stream.next()
            await vertex.wait_for_calls(1)
        assert await vertex.wait_for_outcome("cancelled", count=1)
    vertex.behave()
    assert not (await chain.chat(unique("still there?"))).json()["metadata"].get("fallback")


@pytest.mark.parametrize("cleanly", [True, False])
async def test_a_reply_that_breaks_off_ends_with_an_error(chain: Chain, vertex: FakeVertex, unique, cleanly):
    vertex.break_off(after_characters=10, cleanly=cleanly)
    async with streaming(chain.http, unique("hi")) as stream:
        events = await stream.rest()
        request_id = stream.response.headers["x-request-id"]
    assert [name for name, _ in events if name != "delta"] == ["routing", "error"]
    assert "delta" in [name for name, _ in events]
    assert events[-1][1] | {"detail": ""} == {
        "detail": "",
        "reason": "MODEL_INTERRUPTED",
        "retryable": True,
        "request_id": request_id,
        "retry_after_seconds": 1.0,
    }


async def test_a_model_that_fails_is_apologised_for(chain: Chain, vertex: FakeVertex, unique):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    message = unique("hi")
    async with streaming(chain.http, message) as stream:
        _, (name, delta), (last, end) = await stream.rest()
    assert (name, last) == ("delta", "done")
    whole = (await chain.chat(message)).json()
    assert delta["text"] == whole["content"]
    assert end["metadata"]["fallback"]
    for member in ("persona_used", "resonance_key", "confidence"):
        assert end[member] == whole[member]
    assert end["metadata"]["error"] == whole["metadata"]["error"]
    assert end["metadata"]["routing"] == whole["metadata"]["routing"]


async def test_a_stored_reply_streams_too(chain: Chain, vertex: FakeVertex, unique):
    message = unique("hi")
    whole = (await chain.chat(message)).json()
    async with streaming(chain.http, message) as stream:
        *events, (_, end) = await stream.rest()
    assert "".join(data["text"] for name, data in events if name == "delta") == whole["content"]
    assert end["metadata"]["llm"]["cache"] == "hit"
    assert len(vertex.calls) == 1


@pytest.mark.parametrize(
    ("body", "status"), [({"message": " "}, 422), ({"message": "hi", "persona": "nobody"}, 404), ({}, 422)]
)
async def test_a_bad_question_is_an_http_error(chain: Chain, body, status):
    response = await chain.http.post("/chat", json=body, headers={"Accept": "text/event-stream"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"


async def test_a_stop_waits_for_streams_and_tells_those_it_cannot_wait_for():
    async with FakeVertex() as vertex:
        env = vertex_env({"us-central1": vertex.endpoint}, ION_GRACE_SECONDS="2", ION_HEDGE="off")
        async with standalone(env) as chain:
            vertex.pieces(PIECES)
            vertex.hold_after_pieces(1, times=1)
            async with streaming(chain.http, "one") as endless:
                assert [(await endless.next())[0] for _ in range(2)] == ["routing", "delta"]
                vertex.delay(0.5)
                async with streaming(chain.http, "two") as ending:
                    assert (await ending.next())[0] == "routing"
                    chain.processes["ion"].signal(signal.SIGTERM)
                    assert (await ending.rest())[-1][0] == "done"
                name, error = (await endless.rest())[-1]
            assert await chain.processes["ion"].ended() == 0
        assert (name, error["reason"]) == ("error", "MODEL_INTERRUPTED")
        assert await vertex.wait_for_outcome("cancelled", count=1)
        assert chain.processes["ion"].logged("Exception in ASGI application") == []
