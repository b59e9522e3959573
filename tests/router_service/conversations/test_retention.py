"""Sessions that nobody has used for long."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest

from chassis.database import NoDatabase
from chassis.deadline import Deadline
from router_service.conversations import retention, store
from router_service.conversations.conversation import Exchange
from router_service.conversations.retention import SECONDS_A_DAY, sweep, sweeping
from router_service.conversations.store import SqlConversations

OWNER = "a" * 64
HELLO = Exchange("hello", "hi", "Lua", "calm-medium-statement", 0.5, "m")


@pytest.fixture(autouse=True)
def at_once(monkeypatch) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0)


async def use(database, session_id: str, days_ago: float) -> None:
    """The session is used then."""
    conversations = SqlConversations(database, now=lambda: datetime.now(UTC) - timedelta(days=days_ago))
    past = await conversations.recall(OWNER, session_id, Deadline.after(60))
    assert await conversations.append(OWNER, session_id, past, HELLO, Deadline.after(60))


async def left(database) -> set[str]:
    sessions, _ = await SqlConversations(database).list_sessions(OWNER, 100, "", Deadline.after(60))
    return {session.session_id for session in sessions}


async def until_left(database, wanted: set[str]) -> None:
    async with asyncio.timeout(20):
        while await left(database) != wanted:
            await asyncio.sleep(0.01)


async def test_those_last_used_longer_ago_are_deleted(database):
    await use(database, "old", 8)
    await use(database, "old but used again", 8)
    await use(database, "old but used again", 6)
    assert await sweep(SqlConversations(database), 7 * SECONDS_A_DAY)
    assert await left(database) == {"old but used again"}


async def test_a_sweep_goes_on_until_all_are_deleted(database, monkeypatch):
    monkeypatch.setattr(store, "DELETED_AT_MOST", 1)
    monkeypatch.setattr(store, "DELETED_AT_ONCE", 1)
    for number in range(5):
        await use(database, f"old {number}", 8)
    assert await sweep(SqlConversations(database), 7 * SECONDS_A_DAY)
    assert await left(database) == set()


async def test_it_sweeps_at_the_start_and_again_and_again(database, monkeypatch):
    monkeypatch.setattr(retention, "SWEEP_SECONDS", 0.01)
    await use(database, "old", 8)
    async with sweeping(SqlConversations(database), retention_days=7):
        await until_left(database, set())
        await use(database, "old again", 8)
        await use(database, "new", 0)
        await until_left(database, {"new"})


async def test_no_days_keep_everything(database):
    await use(database, "old", 36_000)
    tasks = asyncio.all_tasks()
    async with sweeping(SqlConversations(database), retention_days=0):
        assert asyncio.all_tasks() == tasks
    assert await left(database) == {"old"}


async def test_a_database_that_is_away_is_tried_again(database, monkeypatch, caplog):
    monkeypatch.setattr(retention, "RETRY_SECONDS", 0.01)
    caplog.set_level(logging.INFO, "router_service")
    conversations = SqlConversations(NoDatabase())
    assert not await sweep(conversations, 1.0)
    assert [record.reason for record in caplog.records] == ["DATABASE_UNAVAILABLE"]
    await use(database, "old", 8)
    async with sweeping(conversations, retention_days=7):
        async with asyncio.timeout(20):
            while len(caplog.records) < 2:
                await asyncio.sleep(0.001)
        conversations._database = database
        await until_left(database, set())


async def test_it_ends_with_its_block(database):
    tasks = asyncio.all_tasks()
    async with sweeping(SqlConversations(database), retention_days=7):
        (sweeper,) = asyncio.all_tasks() - tasks
    assert sweeper.cancelled()
