"""The methods on sessions, over TCP and a real database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest

from chassis.caller import CALLER_KEY, Caller
from chassis.errors import from_rpc
from chassis.trust import SERVICE_TOKEN_KEY
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2
from router_service.sessions import MAX_PAGE_SIZE
from tests.router_service.conftest import SERVICE_TOKEN

MISSING = ("GetSession", "ListTurns", "DeleteSession", "ExportSession")


@pytest.fixture
def ask(keeping_router):
    """Call a method as a user; of a stream all messages."""

    async def ask(method: str, *, principal: str = "", user_id: str = "mina", **fields):
        request = getattr(router_pb2, f"{method}Request")(user_id=user_id, **fields)
        metadata = ((SERVICE_TOKEN_KEY, SERVICE_TOKEN), (CALLER_KEY, Caller(principal).to_header()))
        call = getattr(keeping_router, method)(request, timeout=60, metadata=metadata)
        return [message async for message in call] if method == "ExportSession" else await call

    return ask


@pytest.fixture
def say(ask):
    async def say(message: str, session_id: str = "s", **who):
        answer = await ask("Chat", message=message, session_id=session_id, **who)
        assert answer.history == router_pb2.HISTORY_STATUS_STORED

    return say


async def failure(call) -> tuple[str, list[str]]:
    """Reason and named fields."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = from_rpc(caught.value, unreachable=Reason.REASON_UNSPECIFIED)
    return error.reason_name, [violation.field for violation in error.violations]


async def test_a_session_as_it_is_kept(ask, say):
    await say("진짜 짜증나!! 왜 계속 안 돼!!")
    await say("hello there")
    session = (await ask("GetSession", session_id="s")).session
    assert (session.session_id, session.turns, session.title) == ("s", 2, "진짜 짜증나!! 왜 계속 안 돼!!")
    first, second = (await ask("ListTurns", session_id="s")).turns
    assert (first.message, first.reply, first.model) == ("진짜 짜증나!! 왜 계속 안 돼!!", "reply", "m")
    assert (first.persona, session.persona) == ("Lua", second.persona)
    assert first.resonance_key.startswith("frustrated-")
    assert 0.5 < first.confidence <= 1
    assert second.turn_id > first.turn_id
    assert first.created_at.ToDatetime(UTC) <= second.created_at.ToDatetime(UTC)
    assert session.created_at.ToDatetime(UTC) == first.created_at.ToDatetime(UTC)
    assert session.updated_at.ToDatetime(UTC) == second.created_at.ToDatetime(UTC)
    assert datetime.now(UTC) - session.updated_at.ToDatetime(UTC) < timedelta(minutes=5)


async def test_sessions_are_listed_a_page_at_a_time_the_last_used_first(ask, say):
    for session_id in ("a", "b", "c", "a"):
        await say("hello", session_id)
    first = await ask("ListSessions", page_size=2)
    assert [session.session_id for session in first.sessions] == ["a", "c"]
    assert first.sessions[0].turns == 2
    second = await ask("ListSessions", page_size=2, page_token=first.next_page_token)
    assert [session.session_id for session in second.sessions] == ["b"]
    assert second.next_page_token == ""


@pytest.mark.parametrize("newest_first", [False, True])
async def test_turns_are_listed_a_page_at_a_time_in_either_order(ask, say, newest_first):
    said = ["one", "two", "three"]
    for message in said:
        await say(message)
    page = {"session_id": "s", "page_size": 2, "newest_first": newest_first}
    first = await ask("ListTurns", **page)
    second = await ask("ListTurns", page_token=first.next_page_token, **page)
    messages = [turn.message for turn in (*first.turns, *second.turns)]
    assert messages == (said[::-1] if newest_first else said)
    assert second.next_page_token == ""


async def test_a_page_has_20_unless_told(ask, say):
    for number in range(21):
        await say("hello", f"s{number}")
    assert len((await ask("ListSessions")).sessions) == 20
    assert len((await ask("ListSessions", page_size=MAX_PAGE_SIZE)).sessions) == 21


async def test_an_export_is_all_turns_oldest_first(ask, say):
    for message in ("one", "two", "three"):
        await say(message)
    exported = [message.turn for message in await ask("ExportSession", session_id="s")]
    assert exported == list((await ask("ListTurns", session_id="s")).turns)
    assert [turn.message for turn in exported] == ["one", "two", "three"]


async def test_a_deleted_session_is_gone_and_begins_anew(ask, say):
    await say("one")
    await ask("DeleteSession", session_id="s")
    for method in MISSING:
        assert await failure(ask(method, session_id="s")) == ("SESSION_NOT_FOUND", [])
    await say("two")
    assert [turn.message for turn in (await ask("ListTurns", session_id="s")).turns] == ["two"]


@pytest.mark.parametrize("stranger", [{"user_id": "somebody else"}, {"user_id": ""}, {"principal": "key:2"}])
async def test_a_session_is_its_owners_alone(ask, say, llm, stranger):
    """Told apart by whose the key is, and by who the key's user is."""
    await say("my secret", principal="key:1")
    stranger = {"principal": "key:1"} | stranger
    for method in MISSING:
        assert await failure(ask(method, session_id="s", **stranger)) == ("SESSION_NOT_FOUND", [])
    assert not (await ask("ListSessions", **stranger)).sessions
    await say("what did I say?", **stranger)
    assert [content.text for content in llm.requests[-1].prompt.contents] == ["what did I say?"]
    await ask("DeleteSession", session_id="s", **stranger)
    assert (await ask("GetSession", session_id="s", principal="key:1")).session.turns == 1


@pytest.mark.parametrize("method", MISSING)
@pytest.mark.parametrize("session_id", ["", "s" * 129, "a\x00"])
async def test_an_id_that_is_none(ask, method, session_id):
    assert await failure(ask(method, session_id=session_id)) == ("INVALID_FIELD", ["session_id"])


@pytest.mark.parametrize("method", [*MISSING, "ListSessions"])
async def test_a_user_that_is_none(ask, method):
    fields = {} if method == "ListSessions" else {"session_id": "s"}
    assert await failure(ask(method, user_id="u" * 129, **fields)) == ("INVALID_FIELD", ["user_id"])


@pytest.mark.parametrize("page", [{"page_size": -1}, {"page_size": MAX_PAGE_SIZE + 1}, {"page_token": "no token"}])
async def test_a_page_that_is_none(ask, say, page):
    await say("hello")
    (field,) = page
    assert await failure(ask("ListSessions", **page)) == ("INVALID_FIELD", [field])
    assert await failure(ask("ListTurns", session_id="s", **page)) == ("INVALID_FIELD", [field])


@pytest.mark.parametrize("method", [*MISSING, "ListSessions"])
async def test_without_a_database_it_says_so(router, method):
    fields = {} if method == "ListSessions" else {"session_id": "s"}
    call = getattr(router, method)(getattr(router_pb2, f"{method}Request")(**fields), timeout=60)
    assert await failure(call.read() if method == "ExportSession" else call) == ("DATABASE_UNAVAILABLE", [])


async def test_sessions_are_kept_for_all_calls_at_once(ask, say):
    await asyncio.gather(*(say("hello", f"s{number}") for number in range(20)))
    await asyncio.gather(*(say("hello again", "s0") for _ in range(20)))
    assert (await ask("GetSession", session_id="s0")).session.turns == 21


async def test_a_page_of_long_turns_is_as_long_as_fits_a_message(ask, say, llm):
    llm.text = "길" * 400_000  # 1.2 MB
    for number in range(5):
        await say(f"turn {number}")
    first = await ask("ListTurns", session_id="s", page_size=5)
    assert [turn.message for turn in first.turns] == ["turn 0", "turn 1"]
    second = await ask("ListTurns", session_id="s", page_size=2, page_token=first.next_page_token)
    assert [turn.message for turn in second.turns] == ["turn 2", "turn 3"]
