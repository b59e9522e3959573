"""Each statement finds its rows by an index, on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis.database import Database, DatabaseSettings, open_database
from chassis.deadline import Deadline
from router_service.assembly import HISTORY
from router_service.conversations import statements
from router_service.conversations.tables import sessions, turns

START = datetime(2026, 11, 25, 12, tzinfo=UTC)
OWNERS, SESSIONS, TURNS = 100, 1000, 20_000
GIVEN = {
    "given_owner": "owner 1",
    "given_session_id": "session 1",
    "given_updated_at": START + timedelta(seconds=SESSIONS / 2),
    "given_created_at": START,
    "given_pk": 1000,
    "given_session": 1,
    "given_persona": "Lua",
    "given_title": "title",
    "given_message": "message",
    "given_reply": "reply",
    "given_resonance_key": "calm-medium-inquiry",
    "given_confidence": 0.5,
    "given_model": "model",
    "given_summary": "more",
    "given_covered": 1,
    "known_summary": "",
    "limit": 2,
}
BY_NAME, BY_USE, BY_AGE, BY_SESSION = (
    "sessions_owner_session_id",
    "sessions_owner_updated_at",
    "sessions_updated_at",
    "turns_session",
)
# On both; `Sort` and a temporary tree are what an index would have saved.
ASKED = {
    "recall": (statements.RECALL, {BY_NAME, BY_SESSION}),
    "list sessions": (statements.LIST_SESSIONS, {BY_USE}),
    "session": (statements.SESSION, {BY_NAME}),
    "oldest turns": (statements.OLDEST_TURNS, {BY_NAME, BY_SESSION}),
    "newest turns": (statements.NEWEST_TURNS, {BY_NAME, BY_SESSION}),
    "continue": (statements.CONTINUE_SESSION, set()),
    "delete": (statements.DELETE, {BY_NAME}),
    "turns go with their session": (sa.delete(turns).where(turns.c.session == 1), {BY_SESSION}),
    "summarise": (statements.SUMMARISE, set()),
    "delete oldest": (statements.DELETE_OLDEST, {BY_AGE}),
}


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection]:
    """To a database with enough in it that reading all would not be quicker."""
    settings = DatabaseSettings(database_url=database_url, database_timeout_seconds=60)
    async with open_database(settings, [HISTORY]) as database:
        await fill(database)
        async with database.reading(Deadline.after(60), "SELECT sessions") as connection:
            if connection.dialect.name == "postgresql":
                # A sort that is left is one that no index spares; some rows are sorted quicker than read in order.
                await connection.execute(sa.text("SET enable_sort = off"))
                await connection.execute(sa.text("SET enable_bitmapscan = off"))
            yield connection


async def fill(database: Database) -> None:
    async with database.transaction(Deadline.after(60), "INSERT sessions") as connection:
        await connection.execute(sa.insert(sessions), [_session(number) for number in range(1, SESSIONS + 1)])
        await connection.execute(sa.insert(turns), [_turn(number) for number in range(TURNS)])
    async with database.writing(Deadline.after(60), "INSERT session") as connection:
        await connection.execute(sa.text("ANALYZE"))


def _session(number: int) -> dict[str, Any]:
    at = START + timedelta(seconds=number)
    named = {"owner": f"owner {number % OWNERS}", "session_id": f"session {number}", "title": "title"}
    told = {"turns": TURNS // SESSIONS, "persona": "Lua", "summary": "", "covered": 0}
    return {"pk": number, "created_at": at, "updated_at": at} | named | told


def _turn(number: int) -> dict[str, Any]:
    told = {"message": "message" * 20, "reply": "reply" * 20, "persona": "Lua", "model": "model"}
    read = {"resonance_key": "calm-medium-inquiry", "confidence": 0.5}
    return {"session": 1 + number % SESSIONS, "created_at": START} | told | read


async def plan(connection: AsyncConnection, statement: Any) -> str:
    """What the database would do for the statement."""
    compiled = statement.compile(dialect=connection.dialect)
    given = compiled.construct_params(GIVEN)
    in_order = tuple(_as_kept(given[name], connection.dialect.name) for name in compiled.positiontup)
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    rows = await connection.exec_driver_sql(f"{explain} {compiled}", in_order)
    # SQLite does not keep the names of constraints.
    return "\n".join(str(row[-1]) for row in rows).replace("sqlite_autoindex_sessions_1", BY_NAME)


def _as_kept(value: Any, dialect: str) -> Any:
    return str(value) if isinstance(value, datetime) and dialect == "sqlite" else value


async def test_each_statement_reads_by_its_index_and_sorts_nothing(connection: AsyncConnection) -> None:
    for name, (by_dialect, indexes) in ASKED.items():
        statement = by_dialect[connection.dialect.name] if isinstance(by_dialect, dict) else by_dialect
        found = await plan(connection, statement)
        assert {index for index in indexes if index in found} == indexes, f"{name}:\n{found}"
        for wasteful in ("Seq Scan", "Sort", "SCAN", "TEMP B-TREE"):
            assert wasteful not in found, f"{name}:\n{found}"
