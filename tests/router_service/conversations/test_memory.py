"""What a chat knows of its session, and how long it waits for that."""

from __future__ import annotations

import pytest

from chassis.database import NoDatabase
from chassis.deadline import Deadline
from ion.router.v1 import router_pb2
from router_service.conversations.conversation import Exchange, Past
from router_service.conversations.memory import GRACE_SECONDS, Memory
from router_service.conversations.store import SqlConversations
from router_service.conversations.summary import NoSummaries

OWNER = "a" * 64
HELLO = Exchange("hello", "hi", "Lua", "calm-medium-statement", 0.5, "m")


class Noting(SqlConversations):
    """Notes how many seconds it was given."""

    def __init__(self, database):
        super().__init__(database)
        self.given: list[float] = []

    async def recall(self, owner, session_id, deadline):
        self.given.append(deadline.remaining_seconds())
        return await super().recall(owner, session_id, Deadline.after(10))

    async def append(self, owner, session_id, past, exchange, deadline):
        self.given.append(deadline.remaining_seconds())
        return await super().append(owner, session_id, past, exchange, Deadline.after(10))


class Defective(SqlConversations):
    """Breaks with what was said in its mouth."""

    async def recall(self, owner, session_id, deadline):
        raise ValueError("SECRET")

    async def append(self, owner, session_id, past, exchange, deadline):
        raise ValueError("SECRET")


class Occasions(NoSummaries):
    """Notes what gave an occasion."""

    def __init__(self):
        self.pasts: list[Past] = []

    def consider(self, owner, past):
        assert owner == OWNER
        self.pasts.append(past)


def memory_of(conversations, summaries=None, *, timeout_seconds: float = 20.0) -> Memory:
    return Memory(conversations, summaries or NoSummaries(), timeout_seconds=timeout_seconds)


async def say_hello(memory: Memory, seconds: float = 60) -> router_pb2.HistoryStatus.ValueType:
    session = await memory.recall(OWNER, "s", Deadline.after(60))
    return await memory.keep(session, HELLO, Deadline.after(seconds))


async def test_what_is_kept_is_recalled(database):
    memory = memory_of(SqlConversations(database))
    assert await say_hello(memory) == router_pb2.HISTORY_STATUS_STORED
    session = await memory.recall(OWNER, "s", Deadline.after(60))
    assert session.is_known
    assert [turn.exchange for turn in session.past.turns] == [HELLO]
    assert session.past.persona == "Lua"


async def test_without_a_database_nothing_is_known_and_nothing_raised():
    memory = memory_of(SqlConversations(NoDatabase()))
    session = await memory.recall(OWNER, "s", Deadline.after(60))
    assert (session.is_known, session.past) == (False, Past())
    assert await memory.keep(session, HELLO, Deadline.after(60)) == router_pb2.HISTORY_STATUS_UNAVAILABLE


async def test_a_turn_that_did_not_know_its_past_is_not_kept(database):
    """Even where the database is there again by then."""
    away, there = memory_of(SqlConversations(NoDatabase())), memory_of(SqlConversations(database))
    session = await away.recall(OWNER, "s", Deadline.after(60))
    assert await there.keep(session, HELLO, Deadline.after(60)) == router_pb2.HISTORY_STATUS_UNAVAILABLE
    assert not (await there.recall(OWNER, "s", Deadline.after(60))).past.turns


async def test_a_database_that_goes_meanwhile_is_told(database):
    session = await memory_of(SqlConversations(database)).recall(OWNER, "s", Deadline.after(60))
    away = memory_of(SqlConversations(NoDatabase()))
    assert await away.keep(session, HELLO, Deadline.after(60)) == router_pb2.HISTORY_STATUS_UNAVAILABLE


async def test_a_session_that_is_deleted_meanwhile_stays_so(database):
    conversations = SqlConversations(database)
    memory = memory_of(conversations)
    await say_hello(memory)
    session = await memory.recall(OWNER, "s", Deadline.after(60))
    await conversations.delete(OWNER, "s", Deadline.after(60))
    assert await memory.keep(session, HELLO, Deadline.after(60)) == router_pb2.HISTORY_STATUS_SKIPPED


@pytest.mark.parametrize(("seconds", "timeout_seconds", "most"), [(60, 2, 2), (60, 20, 15), (0.4, 20, 0.1)])
async def test_it_takes_a_quarter_of_the_time_that_is_left_and_no_more_than_the_setting(
    database, seconds, timeout_seconds, most
):
    conversations = Noting(database)
    memory = memory_of(conversations, timeout_seconds=timeout_seconds)
    session = await memory.recall(OWNER, "s", Deadline.after(seconds))
    await memory.keep(session, HELLO, Deadline.after(seconds))
    assert len(conversations.given) == 2
    assert all(most * 0.5 < given <= most for given in conversations.given)


async def test_a_reply_of_the_last_moment_is_stored_all_the_same(database):
    conversations = Noting(database)
    assert await say_hello(memory_of(conversations), seconds=0) == router_pb2.HISTORY_STATUS_STORED
    assert 0 < conversations.given[-1] <= GRACE_SECONDS


async def test_a_stored_turn_alone_gives_the_occasion_for_a_summary(database):
    conversations, occasions = SqlConversations(database), Occasions()
    memory = memory_of(conversations, occasions)
    await say_hello(memory)
    assert occasions.pasts == [Past()]
    session = await memory.recall(OWNER, "s", Deadline.after(60))
    await conversations.delete(OWNER, "s", Deadline.after(60))
    await memory.keep(session, HELLO, Deadline.after(60))
    away = memory_of(SqlConversations(NoDatabase()), occasions)
    await away.keep(session, HELLO, Deadline.after(60))
    assert len(occasions.pasts) == 1


async def test_a_defect_of_what_is_kept_costs_no_answer_and_is_logged_by_its_kind(database, caplog):
    memory = memory_of(Defective(database))
    assert not (await memory.recall(OWNER, "s", Deadline.after(60))).is_known
    session = await memory_of(SqlConversations(database)).recall(OWNER, "s", Deadline.after(60))
    assert await memory.keep(session, HELLO, Deadline.after(60)) == router_pb2.HISTORY_STATUS_UNAVAILABLE
    records = [record for record in caplog.records if record.name.startswith("router_service")]
    assert [(record.levelname, record.cause) for record in records] == [("ERROR", "ValueError")] * 2
    assert "SECRET" not in "".join(str(record.__dict__) for record in records)
