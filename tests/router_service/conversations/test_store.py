"""Conversations in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import inspect, text

from chassis.database import Database, DatabaseSettings, open_database
from chassis.deadline import Deadline
from chassis.errors import InvalidField, IonError
from ion.error.v1.reason_pb2 import Reason
from router_service.assembly import HISTORY
from router_service.conversations import store, tables
from router_service.conversations.conversation import Exchange, Past, SessionNotFound
from router_service.conversations.store import SqlConversations, title_of

OWNER, STRANGER = "a" * 64, "b" * 64
START = datetime(2026, 11, 25, 12, tzinfo=UTC)


class Clock:
    """Moved by hand, and a second on with each look."""

    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    settings = DatabaseSettings(database_url=database_url, database_timeout_seconds=20)
    async with open_database(settings, [HISTORY]) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kept(database: Database, clock: Clock) -> SqlConversations:
    return SqlConversations(database, recalled_turns=4, now=clock)


def soon() -> Deadline:
    """In a long time."""
    return Deadline.after(60)


def exchange(message: str = "hello", **changed: Any) -> Exchange:
    told = Exchange(message, f"re: {message}", "Lua", "calm-medium-inquiry", 0.75, "gemini-3.5-flash")
    return replace(told, **changed)


async def say(kept: SqlConversations, session_id: str, *messages: str, owner: str = OWNER) -> Past:
    """Turns one after the other; the past after them."""
    for message in messages:
        past = await kept.recall(owner, session_id, soon())
        assert await kept.append(owner, session_id, past, exchange(message), soon())
    return await kept.recall(owner, session_id, soon())


def messages(turns: Any) -> list[str]:
    return [turn.exchange.message for turn in turns]


async def exported(kept: SqlConversations, session_id: str, owner: str = OWNER) -> list[str]:
    return messages([turn async for turn in kept.export(owner, session_id, soon())])


async def test_unknown_session_has_no_past(kept: SqlConversations) -> None:
    assert await kept.recall(OWNER, "new", soon()) == Past()


async def test_turn_is_recalled_as_it_was_stored(kept: SqlConversations) -> None:
    said = exchange("오늘 힘들었어 😢", reply="괜찮아", persona="Riri", confidence=0.1 + 0.2)
    assert await kept.append(OWNER, "s", Past(), said, soon())
    past = await kept.recall(OWNER, "s", soon())
    assert [turn.exchange for turn in past.turns] == [said]
    assert past.turns[0].created_at == START + timedelta(seconds=1)
    assert past.turns[0].created_at.tzinfo == UTC
    assert (past.persona, past.summary) == ("Riri", "")


async def test_newest_turns_are_recalled_oldest_first(kept: SqlConversations) -> None:
    past = await say(kept, "s", *"abcdef")
    assert messages(past.turns) == ["c", "d", "e", "f"]
    assert [turn.turn_id for turn in past.turns] == sorted(turn.turn_id for turn in past.turns)


async def test_session_tells_of_its_turns(kept: SqlConversations) -> None:
    await say(kept, "s", "  the first\nmessage ", "the second")
    past = await kept.recall(OWNER, "s", soon())
    await kept.append(OWNER, "s", past, exchange(persona="Elro"), soon())
    session = await kept.session(OWNER, "s", soon())
    assert (session.session_id, session.turns, session.persona) == ("s", 3, "Elro")
    assert session.title == "the first message"
    assert (session.created_at, session.updated_at) == (START + timedelta(seconds=1), START + timedelta(seconds=3))


async def test_owners_do_not_see_each_others_sessions(kept: SqlConversations) -> None:
    past = await say(kept, "s", "mine")
    assert await kept.recall(STRANGER, "s", soon()) == Past()
    assert not await kept.append(STRANGER, "s", past, exchange(), soon())
    assert await kept.list_sessions(STRANGER, 10, "", soon()) == ([], "")
    for call in (kept.session, kept.delete):
        with pytest.raises(SessionNotFound):
            await call(STRANGER, "s", soon())
    with pytest.raises(SessionNotFound):
        await kept.list_turns(STRANGER, "s", 10, "", soon())
    with pytest.raises(SessionNotFound):
        await exported(kept, "s", owner=STRANGER)
    await say(kept, "s", "theirs", owner=STRANGER)
    assert await exported(kept, "s") == ["mine"]


async def test_turns_that_are_told_at_once_are_all_stored(kept: SqlConversations, database: Database) -> None:
    """Also the first ones, of which each finds no session."""
    others = SqlConversations(database)
    told = [(of, f"turn {number}") for number in range(8) for of in (kept, others)]
    stored = await asyncio.gather(*(of.append(OWNER, "s", Past(), exchange(message), soon()) for of, message in told))
    past = await kept.recall(OWNER, "s", soon())
    stored += await asyncio.gather(*(of.append(OWNER, "s", past, exchange(message), soon()) for of, message in told))
    assert all(stored)
    assert (await kept.session(OWNER, "s", soon())).turns == 2 * len(told)
    assert sorted(await exported(kept, "s")) == sorted(2 * [message for _, message in told])


async def test_deleted_session_does_not_come_back(kept: SqlConversations, database: Database) -> None:
    past = await say(kept, "s", "hello")
    await kept.delete(OWNER, "s", soon())
    assert not await kept.append(OWNER, "s", past, exchange(), soon())
    assert not await kept.summarise(past, past.turns[-1].turn_id, "said hello", soon())
    assert await kept.recall(OWNER, "s", soon()) == Past()
    assert await count(database, "turns") == 0
    with pytest.raises(SessionNotFound):
        await kept.delete(OWNER, "s", soon())
    await say(kept, "s", "anew")
    assert not await kept.append(OWNER, "s", past, exchange(), soon())  # of the session that was
    assert await exported(kept, "s") == ["anew"]


async def count(database: Database, table: str) -> int:
    async with database.reading(soon(), "SELECT sessions") as connection:
        number: int = (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
        return number


async def test_turn_that_is_cancelled_is_stored_whole_or_not_at_all(kept: SqlConversations, database: Database) -> None:
    for steps in range(40):
        append = asyncio.create_task(kept.append(OWNER, f"s{steps}", Past(), exchange(), soon()))
        for _ in range(steps):
            await asyncio.sleep(0)
        append.cancel()
        await asyncio.wait((append,))
    sessions, _ = await kept.list_sessions(OWNER, 100, "", soon())
    assert await count(database, "turns") == len(sessions)
    for session in sessions:
        assert await exported(kept, session.session_id) == ["hello"]


async def test_sessions_are_listed_by_their_last_use_a_page_at_a_time(kept: SqlConversations) -> None:
    for name in "abcde":
        await say(kept, name, name)
    await say(kept, "b", "again")
    pages, token = [], ""
    while not pages or token:
        sessions, token = await kept.list_sessions(OWNER, 2, token, soon())
        pages.append([session.session_id for session in sessions])
    assert pages == [["b", "e"], ["d", "c"], ["a"]]


async def test_page_of_sessions_that_is_full_and_the_last_has_no_next(kept: SqlConversations) -> None:
    for name in "ab":
        await say(kept, name, name)
    sessions, token = await kept.list_sessions(OWNER, 2, "", soon())
    assert len(sessions) == 2
    assert token == ""


async def test_sessions_used_at_the_same_time_are_each_listed_once(kept: SqlConversations, clock: Clock) -> None:
    for name in "abcde":
        clock.at = START
        await say(kept, name, name)
    listed, token = [], ""
    while not listed or token:
        sessions, token = await kept.list_sessions(OWNER, 2, token, soon())
        listed += [session.session_id for session in sessions]
    assert sorted(listed) == list("abcde")


async def test_lists_of_sessions_leave_summaries_out(kept: SqlConversations) -> None:
    past = await say(kept, "s", "hello")
    await kept.summarise(past, past.turns[-1].turn_id, "said hello", soon())
    (session,), _ = await kept.list_sessions(OWNER, 10, "", soon())
    assert session.summary == ""
    assert (await kept.session(OWNER, "s", soon())).summary == "said hello"


async def test_pages_of_sessions_stay_what_they_are_where_sessions_are_used_meanwhile(kept: SqlConversations) -> None:
    for name in "abcd":
        await say(kept, name, name)
    _, token = await kept.list_sessions(OWNER, 2, "", soon())
    await say(kept, "new", "new")
    await say(kept, "d", "again")
    sessions, _ = await kept.list_sessions(OWNER, 2, token, soon())
    assert [session.session_id for session in sessions] == ["b", "a"]


@pytest.mark.parametrize("newest_first", [False, True])
async def test_turns_are_listed_a_page_at_a_time(kept: SqlConversations, newest_first: bool) -> None:
    await say(kept, "s", *"abcde")
    await say(kept, "other", "x")
    pages, token = [], ""
    while not pages or token:
        turns, token = await kept.list_turns(OWNER, "s", 2, token, soon(), newest_first=newest_first)
        pages.append("".join(messages(turns)))
        if len(pages) == 1:
            await say(kept, "s", "f")
    assert pages == (["ed", "cb", "a"] if newest_first else ["ab", "cd", "ef"])


async def test_token_is_only_for_the_list_it_comes_from(kept: SqlConversations) -> None:
    await say(kept, "s", *"abc")
    _, token = await kept.list_turns(OWNER, "s", 1, "", soon())
    with pytest.raises(InvalidField):
        await kept.list_turns(OWNER, "s", 1, token, soon(), newest_first=True)
    with pytest.raises(InvalidField):
        await kept.list_sessions(OWNER, 1, token, soon())
    with pytest.raises(InvalidField):
        await kept.list_sessions(OWNER, 1, store.encode_token("s", (2**63 - 1, 1)), soon())  # a time past all calendars


async def test_token_past_the_last_turn_gives_an_empty_page(kept: SqlConversations) -> None:
    past = await say(kept, "s", "a")
    token = store.encode_token("o", (past.turns[-1].turn_id,))
    assert await kept.list_turns(OWNER, "s", 5, token, soon()) == ([], "")


async def test_export_gives_all_turns_and_holds_no_connection_between_pages(
    kept: SqlConversations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "EXPORT_PAGE", 2)
    await say(kept, "s", *"abcde")
    await say(kept, "t", *"wxyz")
    assert await exported(kept, "t") == list("wxyz")
    seen = []
    async with aclosing(kept.export(OWNER, "s", soon())) as turns:
        async for turn in turns:
            seen.append(turn.exchange.message)
            assert database.pool.checked_out == 0
    assert seen == list("abcde")


async def test_export_of_a_session_that_is_deleted_meanwhile_breaks_off(
    kept: SqlConversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "EXPORT_PAGE", 2)
    await say(kept, "s", *"abcde")
    async with aclosing(kept.export(OWNER, "s", soon())) as turns:
        assert (await anext(turns)).exchange.message == "a"
        assert (await anext(turns)).exchange.message == "b"
        await kept.delete(OWNER, "s", soon())
        with pytest.raises(SessionNotFound):
            await anext(turns)


async def test_summary_takes_the_place_of_the_turns_it_covers(kept: SqlConversations) -> None:
    past = await say(kept, "s", *"abc")
    assert await kept.summarise(past, past.turns[1].turn_id, "a and b", soon())
    after = await kept.recall(OWNER, "s", soon())
    assert after.summary == "a and b"
    assert messages(after.turns) == ["c"]
    assert await kept.summarise(after, after.turns[-1].turn_id, "all", soon())
    assert await kept.recall(OWNER, "s", soon()) == Past(past.reference, "all", [], "Lua")
    assert await exported(kept, "s") == list("abc")  # what was said stays


async def test_summary_of_an_old_past_is_not_taken(kept: SqlConversations) -> None:
    past = await say(kept, "s", *"abc")
    assert await kept.summarise(past, past.turns[1].turn_id, "first", soon())
    assert not await kept.summarise(past, past.turns[2].turn_id, "second", soon())
    now = await kept.recall(OWNER, "s", soon())
    assert not await kept.summarise(now, past.turns[0].turn_id, "of less", soon())
    assert (await kept.recall(OWNER, "s", soon())).summary == "first"


async def test_of_two_summaries_made_at_once_one_is_taken(kept: SqlConversations) -> None:
    past = await say(kept, "s", *"abc")
    up_to = [turn.turn_id for turn in past.turns]
    taken = await asyncio.gather(*(kept.summarise(past, covered, f"to {covered}", soon()) for covered in up_to))
    assert sorted(taken) == [False, False, True]
    assert (await kept.recall(OWNER, "s", soon())).summary == f"to {up_to[taken.index(True)]}"


async def test_replicas_share_the_work_of_deleting(
    kept: SqlConversations, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "DELETED_AT_ONCE", 2)
    for number in range(9):
        await say(kept, f"s{number}", "hello")
    clock.at += timedelta(days=1)
    replicas = [SqlConversations(database, now=clock) for _ in range(3)]
    deleted = await asyncio.gather(*(replica.delete_older_than(3600, soon()) for replica in replicas))
    assert sum(deleted) == 9
    assert await count(database, "sessions") == 0


async def test_sessions_that_nobody_has_used_for_long_are_deleted(
    kept: SqlConversations, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "DELETED_AT_ONCE", 2)
    for number in range(5):
        await say(kept, f"old {number}", "hello", owner=OWNER if number % 2 else STRANGER)
    clock.at += timedelta(days=1)
    await say(kept, "young", "hello")
    await say(kept, "old 1", "again")
    assert await kept.delete_older_than(3600, soon()) == 4
    assert await kept.delete_older_than(3600, soon()) == 0
    sessions, _ = await kept.list_sessions(OWNER, 10, "", soon())
    assert [session.session_id for session in sessions] == ["old 1", "young"]
    assert await count(database, "sessions") == 2
    assert await count(database, "turns") == 3


async def test_no_more_than_so_many_sessions_are_deleted_at_a_time(
    kept: SqlConversations, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "DELETED_AT_ONCE", 2)
    monkeypatch.setattr(store, "DELETED_AT_MOST", 4)
    for number in range(5):
        await say(kept, f"s{number}", "hello")
    clock.at += timedelta(days=1)
    assert await kept.delete_older_than(3600, soon()) == 4
    assert await kept.delete_older_than(3600, soon()) == 1


async def test_text_is_kept_as_data(kept: SqlConversations) -> None:
    said = "'; DROP TABLE turns; -- %s :given_owner $1 \\ \" \n\t\u2028 \U0001f9ff"
    past = await say(kept, said, said)
    assert messages(past.turns) == [said]
    assert (await kept.session(OWNER, said, soon())).session_id == said


async def test_character_0_becomes_a_replacement(kept: SqlConversations) -> None:
    past = await say(kept, "s\0", "a\0b")
    assert messages(past.turns) == ["a\ufffdb"]


async def test_long_texts_are_kept(kept: SqlConversations) -> None:
    said = exchange("가" * 1000, reply="나" * 100_000)
    assert await kept.append(OWNER, "s", Past(), said, soon())
    assert (await kept.recall(OWNER, "s", soon())).turns[0].exchange == said


async def test_database_that_is_away_is_told_by_its_reason() -> None:
    settings = DatabaseSettings(database_url="postgresql://ion@127.0.0.1:1/ion")
    async with open_database(settings, [HISTORY]) as database:
        kept = SqlConversations(database)
        for call in (kept.recall(OWNER, "s", soon()), kept.append(OWNER, "s", Past(), exchange(), soon())):
            with pytest.raises(IonError) as caught:
                await call
            assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE


@given(st.text())
def test_title_is_one_short_line_of_the_message(message: str) -> None:
    title = title_of(message)
    assert len(title) <= 80
    assert title == " ".join(title.split())
    assert title.removesuffix("…") in " ".join(message.split())
    if len(" ".join(message.split())) <= 80:
        assert title == " ".join(message.split())


async def test_tables_are_what_the_migrations_leave(database: Database) -> None:
    async with database.reading(soon(), "SELECT sessions") as connection:
        for table in (tables.sessions, tables.turns):
            columns = await connection.run_sync(lambda sync, name=table.name: inspect(sync).get_columns(name))
            assert [column["name"] for column in columns] == [column.name for column in table.columns]
            assert not any(column["nullable"] for column in columns)
