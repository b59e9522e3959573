"""What every exchange passes, whatever its route."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway_http.front import SECURITY_HEADERS, Front, cancelled_when_client_leaves

OWN = {name for name, _ in SECURITY_HEADERS} | {b"x-request-id", b"traceparent"}


async def exchange(
    app: Any, headers: list[tuple[bytes, bytes]], method: str = "POST"
) -> tuple[int, dict[bytes, bytes]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": "/", "headers": headers, "state": {}}
    await Front(app)(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])


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
        await Front(app)(scope, receive, send)
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


async def test_the_watcher_ends_with_the_block():
    never = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await never.wait()
        return {}

    before = len(asyncio.all_tasks())
    async with cancelled_when_client_leaves({"state": {}}, receive):  # type: ignore[typeddict-item]
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
