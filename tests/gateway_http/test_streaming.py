"""Answers that are sent piece by piece."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from litestar import Litestar, Request, Response, get

from chassis.caller import OpenDoor
from chassis.errors import IonError
from gateway_http import errors
from gateway_http.event_stream import Event, event_stream
from gateway_http.front import Front
from gateway_http.streaming import Format, Streamed
from ion.error.v1.reason_pb2 import Reason
from tests.gateway_http.serving import nothing
from tests.stack.harness import free_port

EVENTS = event_stream(lambda error: Event("error", error.reason_name))
LINES = Format("application/x-ndjson", lambda line: line + b"\n")
Parts = Callable[[], AsyncGenerator[Any, None]]


@asynccontextmanager
async def streaming(
    parts: Parts, how: Format, *, grace_seconds: int = 1
) -> AsyncIterator[tuple[httpx.AsyncClient, uvicorn.Server]]:
    """A server that answers GET / with the parts."""

    @get("/")
    async def answer(request: Request[Any, Any, Any]) -> Response[Any]:
        return await Streamed.begun(request, parts(), how)

    handlers = {IonError: errors.on_ion_error, Exception: errors.on_defect}
    app = Front(Litestar([answer], exception_handlers=handlers, logging_config=None), OpenDoor())
    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        log_config=None,
        port=free_port(),
        timeout_graceful_shutdown=grace_seconds,
    )
    server = uvicorn.Server(config)
    server.capture_signals = nothing  # type: ignore[method-assign]
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{config.port}", timeout=10) as http:
            yield http, server
    finally:
        server.should_exit = True
        await running


async def two() -> AsyncGenerator[Any, None]:
    yield Event("one", {"a": 1})
    yield Event("", b"[DONE]")


async def test_parts_become_frames():
    async with streaming(two, EVENTS) as (http, _):
        response = await http.get("/")
    assert response.text == 'event: one\ndata: {"a":1}\n\ndata: [DONE]\n\n'
    assert "content-length" not in response.headers


async def test_a_part_is_sent_before_the_next_is_there():
    goes_on = asyncio.Event()

    async def parts() -> AsyncGenerator[Any, None]:
        yield b"first"
        await goes_on.wait()
        yield b"second"

    async with streaming(parts, LINES) as (http, _), http.stream("GET", "/") as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "first"
        goes_on.set()
        assert await anext(lines) == "second"


async def test_an_empty_stream_is_empty():
    async def none() -> AsyncGenerator[Any, None]:
        return
        yield

    async with streaming(none, LINES) as (http, _):
        response = await http.get("/")
    assert (response.status_code, response.content) == (200, b"")


@pytest.mark.parametrize(
    ("error", "told"),
    [(IonError(Reason.REASON_MODEL_INTERRUPTED), "MODEL_INTERRUPTED"), (ValueError("secret"), "INTERNAL")],
)
async def test_what_fails_later_is_told_in_the_stream(error, told, caplog):
    async def parts() -> AsyncGenerator[Any, None]:
        yield Event("one", 1)
        raise error

    async with streaming(parts, EVENTS) as (http, _):
        response = await http.get("/")
    assert response.text.endswith(f'event: error\ndata: "{told}"\n\n')
    defects = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(defects) == (told == "INTERNAL")


async def test_without_words_for_it_the_connection_is_cut():
    async def parts() -> AsyncGenerator[Any, None]:
        yield b"first"
        raise IonError(Reason.REASON_DATABASE_UNAVAILABLE)

    async with streaming(parts, LINES) as (http, _):
        with pytest.raises(httpx.RemoteProtocolError):
            await http.get("/")


async def test_what_fails_first_is_the_answer():
    async def parts() -> AsyncGenerator[Any, None]:
        raise IonError(Reason.REASON_SESSION_NOT_FOUND)
        yield

    async with streaming(parts, LINES) as (http, _):
        response = await http.get("/")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/json"


async def test_silence_is_filled_and_speech_is_not():
    goes_on = asyncio.Event()

    async def parts() -> AsyncGenerator[Any, None]:
        yield Event("one", 1)
        await goes_on.wait()
        yield Event("two", 2)

    how = event_stream(lambda error: Event("error", error.reason_name), silence_seconds=0.05)
    async with streaming(parts, how) as (http, _), http.stream("GET", "/") as response:
        lines = response.aiter_lines()
        seen = [await anext(lines) for _ in range(3)]
        beats = 0
        while beats < 3:
            beats += await anext(lines) == ": keep-alive"
        goes_on.set()
        rest = [line async for line in lines]
    assert seen == ["event: one", "data: 1", ""]
    assert [line for line in rest if line and not line.startswith(":")] == ["event: two", "data: 2"]


async def test_no_heartbeat_soon_after_speech(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("gateway_http.streaming.time", clock)
    goes_on = asyncio.Event()

    async def parts() -> AsyncGenerator[Any, None]:
        yield Event("", 1)
        await clock.read_often.wait()  # many times the heartbeat's turn would have come
        yield Event("", 2)
        clock.now += 1
        await goes_on.wait()

    how = event_stream(lambda error: Event("error", error.reason_name), silence_seconds=0.01)
    async with streaming(parts, how) as (http, _), http.stream("GET", "/") as response:
        lines = response.aiter_lines()
        seen = [await anext(lines) for _ in range(5)]
        goes_on.set()
    assert seen == ["data: 1", "", "data: 2", "", ": keep-alive"]


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now, self.reads, self.read_often = 0.0, 0, asyncio.Event()

    def monotonic(self) -> float:
        self.reads += 1
        if self.reads == 20:
            self.read_often.set()
        return self.now


async def test_a_client_that_leaves_ends_the_parts_and_all_tasks():
    ended = asyncio.Event()

    async def parts() -> AsyncGenerator[Any, None]:
        try:
            yield Event("one", 1)
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with streaming(parts, EVENTS) as (http, server):
        async with http.stream("GET", "/") as response:
            await anext(response.aiter_lines())
        async with asyncio.timeout(5):
            await ended.wait()
            while server.server_state.tasks:
                await asyncio.sleep(0.01)


async def test_a_client_that_leaves_while_it_does_not_read_ends_the_parts():
    """The server waits for room to write, and not for the next part."""
    ended = asyncio.Event()

    async def parts() -> AsyncGenerator[Any, None]:
        try:
            while True:
                yield b"x" * 100_000
        finally:
            ended.set()

    kept = parts()  # so that nothing but the stream closes it
    async with streaming(lambda: kept, LINES) as (http, server):
        _, writer = await asyncio.open_connection("127.0.0.1", http.base_url.port)
        writer.transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(10):
            while not any(connection.flow.write_paused for connection in server.server_state.connections):
                await asyncio.sleep(0.01)
            assert not ended.is_set()
            writer.transport.abort()
            await ended.wait()


async def test_when_the_grace_of_a_stop_is_over_the_stream_ends_with_an_error(caplog):
    async def parts() -> AsyncGenerator[Any, None]:
        yield Event("one", 1)
        await asyncio.Event().wait()

    async with streaming(parts, EVENTS) as (http, server), http.stream("GET", "/") as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "event: one"
        server.should_exit = True
        rest = [line async for line in lines]
    assert rest[-3:] == ["event: error", 'data: "MODEL_INTERRUPTED"', ""]
    assert not [record for record in caplog.records if record.exc_info]
