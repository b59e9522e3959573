"""What answers of others, or of nobody, become; and what errors are good for besides being raised."""

from __future__ import annotations

import asyncio
import json
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

import ion_client
from ion.error.v1.reason_pb2 import Reason
from ion_client._http.errors import from_answer
from ion_client.errors import failure, interrupted, is_known
from tests.ion_client.kinds import connected
from tests.stack.harness import bound_to, free_port, start

# They come inside of apologies alone.
NEVER_RAISED = {"UNSPECIFIED", "MODEL_REJECTED", "MODEL_BLOCKED", "MODEL_CREDENTIALS"}


def test_every_reason_of_the_contract_has_its_class():
    reasons = {name.removeprefix("REASON_") for name in Reason.keys()} - NEVER_RAISED  # noqa: SIM118
    assert {reason for reason in reasons if not is_known(reason)} == set()


@pytest.mark.parametrize(
    ("status", "kind", "reason", "retryable"),
    [
        (400, ion_client.InvalidRequest, "BAD_REQUEST", False),
        (401, ion_client.Unauthenticated, "UNAUTHENTICATED", False),
        (403, ion_client.Unauthenticated, "FORBIDDEN", False),
        (404, ion_client.NotFound, "NOT_FOUND", False),
        (413, ion_client.InvalidRequest, "REQUEST_ENTITY_TOO_LARGE", False),
        (429, ion_client.RateLimited, "RATE_LIMITED", True),
        (500, ion_client.Internal, "INTERNAL_SERVER_ERROR", False),
        (502, ion_client.Unavailable, "BAD_GATEWAY", False),
        (503, ion_client.Unavailable, "SERVICE_UNAVAILABLE", False),
        (504, ion_client.DeadlineExceeded, "DEADLINE_EXCEEDED", True),
        (599, ion_client.Internal, "HTTP_599", False),
        (302, ion_client.Internal, "FOUND", False),
    ],
)
def test_an_answer_of_something_between_is_told_by_its_status(status, kind, reason, retryable):
    error = from_answer(status, {}, b"<html>words of nobody's</html>")
    assert type(error) is kind
    assert (error.reason, error.retryable) == (reason, retryable)
    assert str(error) == f"The call failed with HTTP {status}."


def test_when_to_come_again_is_told_in_seconds_or_as_a_date():
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    assert from_answer(503, {"retry-after": "7"}, b"").retry_after_seconds == 7
    assert 3500 < from_answer(503, {"retry-after": later}, b"").retry_after_seconds <= 3600
    assert from_answer(503, {"retry-after": "7"}, b"").retryable
    nowhere = later.replace("GMT", "-0000")
    assert 3500 < from_answer(503, {"retry-after": nowhere}, b"").retry_after_seconds <= 3600
    for nonsense in ("", "soon", "-1", "²"):
        assert from_answer(503, {"retry-after": nonsense}, b"").retry_after_seconds is None


def test_all_fields_that_are_wrong_are_named():
    detail = [
        {"type": "missing", "loc": ["body", "message"], "msg": "is required"},
        {"type": "type_error", "loc": ["header", "X-Request-Timeout"], "msg": "must be a number"},
        {"type": "json_invalid", "loc": ["body"], "msg": "must be valid JSON"},
    ]
    error = from_answer(422, {}, json.dumps({"detail": detail, "request_id": "r1"}).encode())
    assert (error.reason, error.request_id) == ("INVALID_FIELD", "r1")
    assert [violation.field for violation in error.violations] == ["message", "X-Request-Timeout", "body"]
    assert str(error).startswith("message: is required; X-Request-Timeout: ")


def test_errors_travel_between_processes():
    error = interrupted(failure("OVERLOADED", "Too much.", retry_after_seconds=2.0, request_id="r1"), "so far")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ion_client.Interrupted
    assert (str(copy), copy.__dict__) == (str(error), error.__dict__)


async def raw_server(answer: bytes) -> asyncio.Server:
    """Answers each request with these bytes, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


def answered(body: bytes, media_type: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (media_type, len(body)) + body


@pytest.mark.parametrize("kind", ["sync http", "async http"])
@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'{"content": "hi"}', b""])
async def test_an_answer_that_is_not_ions_is_told_so(kind, body):
    async with await raw_server(answered(body)) as server:
        http = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connected(kind, grpc="", http=http) as ion:
            for call in (ion.chat("hello"), ion.stream("hello").read()):
                with pytest.raises(ion_client.Internal) as raised:
                    await call
                assert raised.value.reason == "BAD_ANSWER"


METADATA = {
    "tone": {
        "primary": "calm",
        "confidence": 1,
        "secondary": None,
        "secondary_confidence": 0,
        "abstained": False,
        "new": 1,
    },
    "intent": {"primary": "inquiry", "confidence": 1, "new": 1},
    "rhythm": {"pace": "burst", "avg_length": 1, "punctuation_density": 0, "confidence": 1, "new": 1},
}
CHOSEN = {"persona_used": "Lua", "resonance_key": "k", "confidence": 1, "metadata": METADATA, "new": 1}
ROUTING = f"event: routing\ndata: {json.dumps(CHOSEN)}\n\n".encode()
DELTA = b'event: delta\ndata: {"text":"hi\xe2\x80\xa8"}\n\n'
DONE = b'event: done\ndata: {"persona_used":"Lua","resonance_key":"k","confidence":1,"metadata":{"new":1},"more":2}\n\n'


@pytest.mark.parametrize("kind", ["sync http", "async http"])
async def test_a_newer_service_may_say_more_in_a_stream(kind):
    events = b": keep-alive\n\n" + ROUTING + b"event: news\ndata: {}\n\n" + DELTA + DONE
    async with await raw_server(answered(events, b"text/event-stream")) as server:
        http = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connected(kind, grpc="", http=http) as ion:
            reply = await ion.stream("hello").read()
    assert (reply.text, reply.analysis.rhythm.pace) == ("hi\u2028", "burst")


@pytest.mark.parametrize("kind", ["sync http", "async http"])
@pytest.mark.parametrize(
    ("events", "kind_of_error", "reason"),
    [
        (ROUTING + DELTA, ion_client.Interrupted, "CONNECTION_LOST"),
        (ROUTING, ion_client.Unavailable, "CONNECTION_LOST"),
        (DONE, ion_client.Internal, "BAD_ANSWER"),
        (ROUTING + b"event: delta\ndata: {\n\n", ion_client.Internal, "BAD_ANSWER"),
    ],
)
async def test_a_stream_without_its_end_or_beginning_is_no_reply(kind, events, kind_of_error, reason):
    async with await raw_server(answered(events, b"text/event-stream")) as server:
        http = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connected(kind, grpc="", http=http, max_retries=0) as ion:
            with pytest.raises(kind_of_error) as raised:
                await ion.stream("hello").read()
    assert raised.value.reason == reason


@pytest.mark.parametrize("kind", ["sync http", "async http"])
@pytest.mark.parametrize(("events", "text"), [(ROUTING + DELTA + DONE, "hi\u2028"), (ROUTING + DONE, "")])
async def test_a_reply_that_is_complete_outlives_its_connection(kind, events, text):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    async with await raw_server(head + b"%x\r\n%b\r\n" % (len(events), events)) as server:
        http = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connected(kind, grpc="", http=http) as ion:
            heard = [event async for event in ion.stream("hello").events()]
            assert (await ion.stream("hello").read()).text == text
    assert [type(event) for event in heard].count(ion_client.Done) == 1


@pytest.mark.parametrize("kind", ["sync http", "async http"])
async def test_a_gateway_whose_router_is_away_apologises(kind):
    nowhere = f"127.0.0.1:{free_port()}"
    env = {"ION_ROUTER_TARGET": nowhere, "ION_LLM_TARGET": nowhere, "ION_HTTP_BIND": "127.0.0.1:0"}
    async with (
        start("gateway_http", "gateway_http", env=env) as gateway,
        connected(kind, grpc="", http=await bound_to(gateway), max_retries=0) as ion,
    ):
        reply = await ion.chat("hello", timeout_seconds=5)
        async with ion.stream("hello", timeout_seconds=5) as stream:
            assert (stream.choice.persona, stream.analysis) == ("Nana", None)
            assert await stream.read() == reply
        with pytest.raises(ion_client.Unavailable) as raised:
            await ion.route("hello", timeout_seconds=5)
    assert (reply.fallback, reply.persona, reply.analysis) == (True, "Nana", None)
    assert reply.failure == ion_client.Failure("ROUTER_UNAVAILABLE", retryable=True)
    assert raised.value.reason == "ROUTER_UNAVAILABLE"
