"""The routes on sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import InvalidField, IonError
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2
from tests.gateway_http.serving import Gateway, ScriptedRouter, forever, gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")

EARLIER = datetime(2026, 11, 25, 9, 30, 0, 120_000, UTC)
LATER = datetime(2026, 11, 25, 10, tzinfo=UTC)
UNKNOWN = IonError(Reason.REASON_SESSION_NOT_FOUND)
AWAY = IonError(Reason.REASON_DATABASE_UNAVAILABLE, retry_after_seconds=1.5)
METHODS = {
    "/sessions": "ListSessions",
    "/sessions/s": "GetSession",
    "/sessions/s/messages": "ListTurns",
    "/sessions/s/export": "ExportSession",
}


def stamp(moment: datetime) -> Timestamp:
    result = Timestamp()
    result.FromDatetime(moment)
    return result


SESSION = router_pb2.Session(
    session_id="s",
    created_at=stamp(EARLIER),
    updated_at=stamp(LATER),
    turns=2,
    persona="Lua",
    title="안녕",
    summary="They met.",
)
SUMMARY = {
    "session_id": "s",
    "created_at": "2026-11-25T09:30:00.120000Z",
    "updated_at": "2026-11-25T10:00:00Z",
    "turns": 2,
    "persona": "Lua",
    "title": "안녕",
}


def turn(number: int) -> router_pb2.Turn:
    return router_pb2.Turn(
        turn_id=number,
        created_at=stamp(LATER),
        message="hi",
        reply="hello",
        persona="Lua",
        resonance_key="calm-flowing-inquiry",
        confidence=0.5,
        model="m",
    )


def message(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "created_at": "2026-11-25T10:00:00Z",
        "message": "hi",
        "reply": "hello",
        "persona_used": "Lua",
        "resonance_key": "calm-flowing-inquiry",
        "confidence": 0.5,
        "model": "m",
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[tuple[Gateway, ScriptedRouter]]:
    async with gateway({}) as both:
        yield both


@pytest.fixture
def router(started: tuple[Gateway, ScriptedRouter]) -> ScriptedRouter:
    started[1].reset()
    return started[1]


@pytest.fixture
def http(started: tuple[Gateway, ScriptedRouter]) -> httpx.AsyncClient:
    return started[0].http


async def test_a_page_of_sessions(http, router):
    router.script["ListSessions"] = router_pb2.ListSessionsResponse(sessions=[SESSION], next_page_token="more")
    response = await http.get("/sessions", params={"limit": 7, "cursor": "here"}, headers={"X-User-Id": "u"})
    assert response.json() == {"sessions": [SUMMARY], "next_cursor": "more"}
    assert response.headers["cache-control"] == "no-store"
    (asked,) = router.requests["ListSessions"]
    assert asked == router_pb2.ListSessionsRequest(user_id="u", page_size=7, page_token="here")


async def test_the_last_page_has_no_cursor(http, router):
    router.script["ListSessions"] = router_pb2.ListSessionsResponse()
    assert (await http.get("/sessions")).json() == {"sessions": [], "next_cursor": None}
    assert router.requests["ListSessions"] == [router_pb2.ListSessionsRequest(page_size=20)]


async def test_one_session_has_its_summary(http, router):
    router.script["GetSession"] = router_pb2.GetSessionResponse(session=SESSION)
    response = await http.get("/sessions/s", headers={"X-User-Id": "u"})
    assert response.json() == SUMMARY | {"summary": "They met."}
    assert router.requests["GetSession"] == [router_pb2.GetSessionRequest(session_id="s", user_id="u")]


@pytest.mark.parametrize(("order", "newest_first"), [(None, False), ("asc", False), ("desc", True)])
async def test_a_page_of_messages(http, router, order, newest_first):
    router.script["ListTurns"] = router_pb2.ListTurnsResponse(turns=[turn(1), turn(2)], next_page_token="more")
    params = {"limit": 2, "cursor": "c"} | ({"order": order} if order else {})
    response = await http.get("/sessions/s/messages", params=params, headers={"X-User-Id": "u"})
    assert response.json() == {"messages": [message(1), message(2)], "next_cursor": "more"}
    (asked,) = router.requests["ListTurns"]
    assert asked == router_pb2.ListTurnsRequest(
        session_id="s", user_id="u", page_size=2, page_token="c", newest_first=newest_first
    )


async def test_an_export_is_a_line_a_turn(http, router):
    router.script["ExportSession"] = [router_pb2.ExportSessionResponse(turn=turn(number)) for number in (1, 2, 3)]
    response = await http.get("/sessions/s/export", headers={"X-User-Id": "u"})
    assert response.headers["content-type"] == "application/x-ndjson"
    assert response.headers["cache-control"] == "no-store"
    lines = [httpx.Response(200, text=line).json() for line in response.text.splitlines()]
    assert lines == [message(1), message(2), message(3)]
    assert response.text.endswith("}\n")
    assert router.requests["ExportSession"] == [router_pb2.ExportSessionRequest(session_id="s", user_id="u")]


async def test_an_export_comes_as_it_is_read(http, router):
    async def two_of_many(_: Any):
        yield router_pb2.ExportSessionResponse(turn=turn(1))
        async for nothing in forever():
            yield nothing

    router.script["ExportSession"] = two_of_many
    headers = {"Accept-Encoding": "identity"}
    async with http.stream("GET", "/sessions/s/export", headers=headers) as response:
        assert await anext(response.aiter_lines())
    await router.cancelled.wait()


async def test_an_export_that_breaks_off_has_no_end(http, router):
    router.script["ExportSession"] = [router_pb2.ExportSessionResponse(turn=turn(1)), AWAY]
    with pytest.raises(httpx.RemoteProtocolError):
        await http.get("/sessions/s/export")


async def test_a_deleted_session_leaves_nothing_to_say(http, router):
    router.script["DeleteSession"] = router_pb2.DeleteSessionResponse()
    response = await http.delete("/sessions/s", headers={"X-User-Id": "u"})
    assert (response.status_code, response.content) == (204, b"")
    assert router.requests["DeleteSession"] == [router_pb2.DeleteSessionRequest(session_id="s", user_id="u")]


@pytest.mark.parametrize("path", ["/sessions/s", "/sessions/s/messages", "/sessions/s/export"])
async def test_an_unknown_session(http, router, path):
    router.script[METHODS[path]] = UNKNOWN
    response = await http.get(path)
    assert (response.status_code, response.json()["reason"]) == (404, "SESSION_NOT_FOUND")


async def test_deleting_an_unknown_session(http, router):
    router.script["DeleteSession"] = UNKNOWN
    assert (await http.delete("/sessions/s")).status_code == 404


@pytest.mark.parametrize("path", METHODS)
async def test_without_a_database_there_is_nothing_to_see_now(http, router, path):
    router.script[METHODS[path]] = AWAY
    response = await http.get(path)
    assert (response.status_code, response.json()["reason"]) == (503, "DATABASE_UNAVAILABLE")
    assert response.headers["Retry-After"] == "2"


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("/sessions?limit=0", ["query", "limit"]),
        ("/sessions?limit=101", ["query", "limit"]),
        ("/sessions?limit=many", ["query", "limit"]),
        ("/sessions/s/messages?limit=0", ["query", "limit"]),
        ("/sessions/s/messages?order=random", ["query", "order"]),
        ("/sessions?cursor=" + "x" * 600, ["query", "cursor"]),
    ],
)
async def test_parameters_have_their_bounds(http, router, path, place):
    response = await http.get(path)
    assert response.status_code == 422
    assert [item["loc"] for item in response.json()["detail"]] == [place]
    assert router.requests == {}


async def test_the_router_s_objections_name_the_parameter(http, router):
    router.script["ListSessions"] = InvalidField("page_token", "must be one that was given")
    response = await http.get("/sessions?cursor=bad")
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", "cursor"]


@pytest.mark.parametrize("session_id", ["a/b", "../up", "한글", "a b?c#d", "%2F", "x/messages"])
async def test_any_id_can_be_named(http, router, session_id):
    router.script["GetSession"] = router_pb2.GetSessionResponse(session=SESSION)
    router.script["ListTurns"] = router_pb2.ListTurnsResponse()
    quoted = "".join(f"%{byte:02X}" for byte in session_id.encode())
    assert (await http.get(f"/sessions/{quoted}")).status_code == 200
    assert (await http.get(f"/sessions/{quoted}/messages")).status_code == 200
    asked = [router.requests["GetSession"][0], router.requests["ListTurns"][0]]
    assert [request.session_id for request in asked] == [session_id, session_id]


@pytest.mark.parametrize(("header", "user_id"), [("한글".encode(), "한글"), (b"J\xf6rg", "Jörg"), (b"", "")])
async def test_user_ids_are_utf8_or_latin1(http, router, header, user_id):
    router.script["ListSessions"] = router_pb2.ListSessionsResponse()
    await http.get("/sessions", headers={b"X-User-Id": header})
    assert router.requests["ListSessions"][0].user_id == user_id
