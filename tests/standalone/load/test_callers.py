"""What a call is taken for, whatever answers it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from standalone.load.callers import open_grpc, open_http
from standalone.load.plan import Manner
from standalone.load.tally import Answer
from tests.standalone.scripted_router import ROUTED, Router, done, listening, text

MANNER = Manner(timeout_seconds=5.0)
STREAM = Manner(timeout_seconds=5.0, stream=True)
APOLOGY = {"persona_used": "Nana", "metadata": {"fallback": True, "error": {"reason": "MODEL_QUOTA"}}}


def response(status: str, body: object, kind: str = "application/json") -> bytes:
    content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (
        *(status.encode(), kind.encode()),
        *(len(content), content),
    )


def events(*parts: tuple[str, object]) -> bytes:
    frames = "".join(f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in parts)
    return response("200 OK", frames, "text/event-stream")


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that says this to everybody, and None for ever; its URL, and what was asked."""
    asked: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
        finally:
            over.set()


async def ask(answer: bytes | None, manner: Manner = MANNER) -> Answer:
    async with answering(answer) as (url, _), open_http(url, manner, callers=1, trust_env=False) as called:
        return await called.ask("hello", "")


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (response("429 Too Many Requests", {"detail": "", "reason": "RATE_LIMITED"}), "RATE_LIMITED"),
        (response("502 Bad Gateway", "<html>", "text/html"), "HTTP_502"),
        (response("200 OK", APOLOGY), "MODEL_QUOTA"),
        (response("200 OK", []), "NOT_AN_ANSWER"),
        (response("200 OK", "<html>", "text/html"), "NOT_AN_ANSWER"),
        (
            response("200 OK", "hello").replace(b"Connection:", b"Content-Encoding: gzip\r\nConnection:"),
            "NOT_AN_ANSWER",
        ),
        (b"", "BROKEN_OFF"),
    ],
)
async def test_what_fails_over_http(answer, failure):
    assert await ask(answer) == Answer(failure)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (
            events(("routing", {}), ("delta", {"text": "Hm"}), ("error", {"reason": "MODEL_INTERRUPTED"})),
            "MODEL_INTERRUPTED",
        ),
        (events(("routing", {}), ("delta", {"text": "Hm"})), "BROKEN_OFF"),
        (events(("routing", {}), ("delta", {"text": "Sorry"}), ("done", APOLOGY)), "MODEL_QUOTA"),
        (response("503 Service Unavailable", {"reason": "OVERLOADED"}), "OVERLOADED"),
        (response("200 OK", {}), "BROKEN_OFF"),
    ],
)
async def test_what_fails_as_a_stream(answer, failure):
    assert await ask(answer, STREAM) == Answer(failure)


async def test_who_never_answers():
    assert await ask(None, Manner(timeout_seconds=0.1)) == Answer("TIMEOUT")


async def test_what_is_shown_and_asked_for():
    manner = Manner(5.0, stream=True, bypass_cache=True, user_id="ann", authorization="Bearer key")
    async with answering(b"") as (url, asked), open_http(url, manner, callers=1, trust_env=False) as called:
        await called.ask("hello", "")
    lines = set(asked[0].decode().lower().split("\r\n"))
    assert {"authorization: bearer key", "cache-control: no-cache", "x-user-id: ann"} <= lines
    assert "accept: text/event-stream" in lines


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ([ROUTED, text("Sorry."), done(fallback=True, failure={"reason": "REASON_MODEL_QUOTA"})], "MODEL_QUOTA"),
        ([ROUTED, text("Hm"), 18], "MODEL_INTERRUPTED"),
        ([ROUTED, text("Hm")], "BROKEN_OFF"),
    ],
)
async def test_what_fails_over_grpc(script, failure):
    async with listening(Router(*script)) as target, open_grpc(target, STREAM) as called:
        assert await called.ask("hello", "") == Answer(failure)
