"""What every exchange passes, whatever its route."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis import caller
from chassis.caller import Admitted, Caller, OpenDoor, Shown
from chassis.errors import IonError
from gateway_http.departure import cancelled_when_client_leaves
from gateway_http.front import SECURITY_HEADERS, Front
from ion.error.v1.reason_pb2 import Reason

OWN = {name for name, _ in SECURITY_HEADERS} | {b"x-request-id", b"traceparent"}


async def exchange(
    app: Any, headers: list[tuple[bytes, bytes]], method: str = "POST", path: str = "/", door: Any = None
) -> tuple[int, dict[bytes, bytes]]:
    status, answer, _ = await whole_exchange(app, headers, method, path, door)
    return status, answer


async def whole_exchange(
    app: Any, headers: list[tuple[bytes, bytes]], method: str, path: str, door: Any
) -> tuple[int, dict[bytes, bytes], Any]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": headers,
        "client": ("192.0.2.7", 1234),
        "state": {},
    }
    await Front(app, door or OpenDoor())(scope, receive, send)
    body = sent[1].get("body")
    return sent[0]["status"], dict(sent[0]["headers"]), json.loads(body) if body else None


async def ok(scope: Any, receive: Any, send: Any) -> None:
    given_type = dict(scope["headers"]).get(b"content-type", b"none")
    headers = [(b"content-security-policy", b"own"), (b"seen-type", given_type)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def test_every_answer_has_ids_and_security_headers_and_a_route_may_have_its_own():
    status, headers = await exchange(ok, [])
    assert status == 200
    assert set(headers) >= OWN
    assert headers[b"content-security-policy"] == b"own"


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_ids_in_the_answer_are_well_formed_whatever_came(request_id, traceparent):
    _, headers = asyncio.run(exchange(ok, [(b"x-request-id", request_id), (b"traceparent", traceparent)]))
    assert re.fullmatch(rb"[A-Za-z0-9._:-]{1,128}", headers[b"x-request-id"])
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", headers[b"traceparent"])


@pytest.mark.parametrize(
    ("given_type", "status"),
    [
        (None, 200),
        (b"application/json", 200),
        (b"Application/JSON; charset=utf-8", 200),
        (b"application/problem+json", 200),
        (b"application/x-www-form-urlencoded", 200),
        (b"text/plain", 415),
        (b"multipart/form-data; boundary=x", 415),
        (b"application/xml", 415),
        (b"", 415),
    ],
)
async def test_media_types(given_type, status):
    headers = [] if given_type is None else [(b"content-type", given_type)]
    got, answer = await exchange(ok, headers)
    assert got == status
    assert set(answer) >= OWN


@pytest.mark.parametrize("given_type", [None, b"application/x-www-form-urlencoded"])
async def test_an_unsaid_type_is_json_for_the_framework(given_type):
    headers = [] if given_type is None else [(b"content-type", given_type)]
    _, answer = await exchange(ok, headers)
    assert answer[b"seen-type"] == b"application/json"


async def test_only_bodies_have_a_media_type():
    status, _ = await exchange(ok, [(b"content-type", b"text/plain")], method="GET")
    assert status == 200


async def test_a_client_that_leaves_cancels_the_block_and_the_front_ends_quietly():
    left = asyncio.Event()
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with cancelled_when_client_leaves(scope, receive):
            left.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.set()
                raise

    async def receive() -> dict[str, Any]:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pytest.fail("nobody is there to read")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "state": {}}
    async with asyncio.timeout(5):
        await Front(app, OpenDoor())(scope, receive, send)
    assert cancelled.is_set()
    task = asyncio.current_task()
    assert task
    assert not task.cancelling()


async def test_a_cancellation_from_elsewhere_is_passed_on():
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    exchanging = asyncio.create_task(exchange(app, []))
    await started.wait()
    exchanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchanging


class Doorkeeper:
    """Refuses with `error`, or lets in as `caller`; notes what it is shown and what it charges."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.shown: list[Shown] = []
        self.charged: list[tuple[Shown, str, int]] = []

    async def admit(self, shown: Shown) -> Admitted:
        self.shown.append(shown)
        if self.error:
            raise self.error
        return Admitted(Caller("key:1", "pro"), {"RateLimit-Limit": "30", "RateLimit-Remaining": "29"})

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None:
        self.charged.append((shown, admitted.caller.principal, tokens))


async def test_a_caller_comes_in_by_what_it_shows_and_is_the_caller_of_the_request():
    seen: list[Caller] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(caller.current())
        caller.note_tokens(5)
        caller.note_tokens(2)
        await ok(scope, receive, send)

    door = Doorkeeper()
    shown = [(b"authorization", b"Bearer k"), (b"x-api-key", b"a")]
    status, headers = await exchange(app, shown, path="/chat", door=door)
    assert (status, seen) == (200, [Caller("key:1", "pro")])
    assert (headers[b"ratelimit-limit"], headers[b"ratelimit-remaining"]) == (b"30", b"29")
    assert door.shown == [Shown("Bearer k", "a", "192.0.2.7")]
    assert door.charged == [(door.shown[0], "key:1", 7)]


async def test_nothing_used_is_nothing_charged():
    door = Doorkeeper()
    await exchange(ok, [], path="/chat", door=door)
    assert door.charged == []


async def test_what_was_used_is_charged_though_the_client_has_left():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller.note_tokens(3)
        raise asyncio.CancelledError

    door = Doorkeeper()
    with pytest.raises(asyncio.CancelledError):
        await exchange(app, [], path="/chat", door=door)
    assert [tokens for _, _, tokens in door.charged] == [3]


REFUSALS = [
    (IonError(Reason.REASON_UNAUTHENTICATED), 401, {b"www-authenticate": b"Bearer"}),
    (
        IonError(Reason.REASON_RATE_LIMITED, retry_after_seconds=1.2, headers={"RateLimit-Remaining": "0"}),
        429,
        {b"retry-after": b"2", b"ratelimit-remaining": b"0"},
    ),
    (IonError(Reason.REASON_DATABASE_UNAVAILABLE), 503, {b"retry-after": b"1"}),
]


@pytest.mark.parametrize(("error", "status", "headers"), REFUSALS)
async def test_who_is_not_let_in_gets_no_further(error, status, headers):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        pytest.fail("nobody may be here")

    got, answer, body = await whole_exchange(app, [], "POST", "/chat", Doorkeeper(error))
    assert got == status
    assert headers.items() <= answer.items()
    assert set(answer) >= OWN
    assert (body["reason"], body["detail"]) == (error.reason_name, error.message)
    assert body["request_id"].encode() == answer[b"x-request-id"]


async def test_a_door_that_is_broken_is_told_as_a_defect(caplog):
    status, _, body = await whole_exchange(ok, [], "POST", "/chat", Doorkeeper(ValueError("secret")))
    assert (status, body["reason"]) == (500, "INTERNAL")
    assert "secret" not in str(body)
    assert [record.message for record in caplog.records] == ["defect in the door"]


@pytest.mark.parametrize(("error", "status", "headers"), REFUSALS)
async def test_openai_clients_are_refused_in_their_own_terms(error, status, headers):
    got, answer, body = await whole_exchange(ok, [], "POST", "/v1/chat/completions", Doorkeeper(error))
    assert got == status
    assert headers.items() <= answer.items()
    assert set(body["error"]) == {"message", "type", "param", "code"}


async def test_openai_clients_hear_of_media_types_in_their_own_terms():
    headers = [(b"content-type", b"text/plain")]
    status, _, body = await whole_exchange(ok, headers, "POST", "/v1/chat/completions", None)
    assert (status, body["error"]["code"]) == (415, "unsupported_media_type")


PUBLIC = ["/", "/health", "/livez", "/readyz", "/docs", "/docs/start.js", "/docs/assets/x.css", "/openapi.json"]


@pytest.mark.parametrize("path", [*PUBLIC, "/assets/page.12345678.js"])
async def test_public_paths_have_no_door(path):
    door = Doorkeeper(IonError(Reason.REASON_UNAUTHENTICATED))
    status, _ = await exchange(ok, [], "GET", path, door)
    assert (status, door.shown) == (200, [])


@pytest.mark.parametrize(
    "path", ["/chat", "/sessions", "/personas", "/v1/models", "/metrics", "/healthy", "/docsx", "/assets", "/x"]
)
async def test_all_other_paths_have_one(path):
    status, _ = await exchange(ok, [], "GET", path, Doorkeeper(IonError(Reason.REASON_UNAUTHENTICATED)))
    assert status == 401
