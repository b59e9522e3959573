"""The database: its settings, and what its connections promise on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from chassis import telemetry
from chassis.database import Database, DatabaseSettings, NoDatabase, PoolUse, open_database
from chassis.deadline import Deadline
from chassis.errors import IonError
from chassis.observability import tracing
from chassis.settings import load
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.things import fails, is_there, names, opened, soon, things, write
from tests.observed import measured
from tests.postgres import PASSWORD, USER
from tests.stack.harness import until

POOL = {"database_pool_size": 3, "database_max_overflow": 2}
ENDLESS = {
    "postgresql": "SELECT pg_sleep(3600)",
    "sqlite": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
}
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(3600)'"
GROW = text("UPDATE things SET size = size + 1")


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    """With a table `things`, and few connections."""
    async with opened(database_url, things(tmp_path), **POOL) as opened_database:
        yield opened_database


async def size_of(database: Database, name: str) -> int:
    async with database.reading(soon(), "SELECT things") as connection:
        size: int = (
            await connection.execute(text("SELECT size FROM things WHERE name = :name"), {"name": name})
        ).scalar_one()
        return size


@pytest.mark.parametrize(
    "url",
    [
        "mysql://ion:secret@host/name",
        "postgresql://ion:secret@host:port/name",
        "postgresql:///name?password=secret",
        "postgresql+psycopg://ion:secret@host/name",
        "secret",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file.db?secret=1",
    ],
)
def test_url_that_cannot_be_used_ends_the_start(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        load(DatabaseSettings, DATABASE_URL=url)
    said = capsys.readouterr().err
    assert said.startswith("ion: DATABASE_URL=(hidden): must be postgresql://")
    assert said.count("\n") == 1
    assert "secret" not in said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ion:secret@host/name",
        "postgres://host",
        "postgresql+asyncpg://ion@[::1]:5432/name?ssl=require",
        "postgresql://ion@one:1,two:2/name?target_session_attrs=read-write",
    ],
)
def test_urls_of_servers(url: str) -> None:
    settings = load(DatabaseSettings, DATABASE_URL=url)
    assert settings.database_file is None
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///ion.db", "ion.db"),
        ("sqlite:////var/ion.db", "/var/ion.db"),
        ("sqlite+aiosqlite:////ion.db", "/ion.db"),
    ],
)
def test_urls_of_files(url: str, path: str) -> None:
    assert load(DatabaseSettings, DATABASE_URL=url).database_file == Path(path)


async def test_by_default_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    settings = DatabaseSettings(state_dir=tmp_path / "state")
    async with open_database(settings, [things(tmp_path)]) as database:
        await write(database, "kept")
    assert settings.database_file == tmp_path / "state" / "ion.db"
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "ion.db").stat().st_mode) == 0o600


async def test_sqlite_keeps_what_it_acknowledged_and_readers_do_not_wait(tmp_path: Path) -> None:
    async with (
        opened(f"sqlite:///{tmp_path}/ion.db") as database,
        database.reading(soon(), "SELECT things") as connection,
    ):
        found = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


async def test_what_was_written_is_there_for_others(database: Database, database_url: str, tmp_path: Path) -> None:
    await write(database, "one")
    async with database.transaction(soon(), "INSERT things") as connection:
        await connection.execute(text("INSERT INTO things (name, size) VALUES ('two', 2)"))
    async with opened(database_url) as other:
        assert await names(other) == ["one", "two"]


async def test_transaction_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what raises is the block
        async with database.transaction(soon(), "INSERT things") as connection:
            await connection.execute(text("INSERT INTO things (name, size) VALUES ('half', 1)"))
            raise ZeroDivisionError
    assert await names(database) == []
    assert database.pool.checked_out == 0


async def test_transaction_that_is_cancelled_leaves_nothing(database: Database) -> None:
    inside = asyncio.Event()

    async def write_and_wait() -> None:
        async with database.transaction(soon(), "INSERT things") as connection:
            await connection.execute(text("INSERT INTO things (name, size) VALUES ('half', 1)"))
            inside.set()
            await asyncio.Event().wait()

    for _ in range(2 * sum(POOL.values())):  # more often than there are connections
        inside.clear()
        writing = asyncio.create_task(write_and_wait())
        await inside.wait()
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
    assert await names(database) == []
    assert database.pool.checked_out == 0


async def test_statement_that_is_cancelled_ends_and_gives_its_connection_back(database: Database) -> None:
    statements: list[str] = []

    async def work() -> None:
        async with database.writing(soon(), "INSERT thing") as connection:
            statements.append(ENDLESS[connection.dialect.name])
            await connection.execute(text(statements[-1]))

    for count in range(1, 2 * sum(POOL.values())):  # more often than there are connections
        working = asyncio.create_task(work())
        await until(_grows(statements, count))
        working.cancel()
        await asyncio.wait((working,))
        assert working.cancelled()
    await until(_is_idle(database))
    await write(database, "after")
    assert await names(database) == ["after"]


def _grows(statements: list[str], count: int) -> Callable[[], Awaitable[bool]]:
    async def has_grown() -> bool:
        return len(statements) == count

    return has_grown


def _is_idle(database: Database) -> Callable[[], Awaitable[bool]]:
    """No connection is in use, and the server works on nothing."""

    async def is_idle() -> bool:
        if database.pool.checked_out:
            return False
        async with database.reading(soon(), "SELECT things") as connection:
            if connection.dialect.name == "sqlite":
                return True
            return (await connection.execute(text(ACTIVE))).scalar() == 0

    return is_idle


async def test_error_of_a_statement_is_the_callers(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    await write(database, "twice")
    with pytest.raises(IntegrityError) as caught:
        await write(database, "twice", 4711)
    assert "4711" not in str(caught.value)  # nor what people wrote
    assert database.available
    assert await names(database) == ["twice"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


async def test_many_more_tasks_than_connections(database: Database) -> None:
    await write(database, "counter", 0)

    async def use() -> None:
        async with database.transaction(soon(), "INSERT things") as connection:
            await connection.execute(GROW)
        await names(database)

    await asyncio.gather(*(use() for _ in range(64)))
    assert await size_of(database, "counter") == 64
    pool = database.pool
    assert pool == PoolUse(size=3, checked_out=0, overflow=0, idle=pool.idle)
    assert 1 <= pool.idle <= pool.size


async def test_pool_grows_no_further_than_its_overflow(database: Database) -> None:
    enough, done = asyncio.Barrier(sum(POOL.values()) + 1), asyncio.Event()

    async def hold() -> None:
        async with database.reading(soon(), "SELECT things") as connection:
            await connection.execute(text("SELECT 1"))
            await enough.wait()
            await done.wait()

    holders = [asyncio.create_task(hold()) for _ in range(sum(POOL.values()))]
    await enough.wait()
    assert database.pool == PoolUse(size=3, checked_out=5, overflow=2)
    with pytest.raises(IonError) as caught:
        async with database.reading(Deadline.after(0.05), "SELECT things"):
            raise AssertionError("a sixth connection")
    assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE
    assert database.available  # it is only busy
    done.set()
    await asyncio.gather(*holders)


async def test_writers_of_two_processes_do_not_lose_what_the_other_wrote(database: Database, database_url: str) -> None:
    await write(database, "counter", 0)

    async def grow(of: Database) -> None:
        for _ in range(20):
            async with of.transaction(soon(), "INSERT things") as connection:
                await connection.execute(GROW)

    async with opened(database_url) as other:
        await asyncio.gather(grow(database), grow(other))
    assert await size_of(database, "counter") == 40


async def test_no_database_is_never_available() -> None:
    database = NoDatabase()
    for use in (database.transaction, database.writing, database.reading):
        with pytest.raises(IonError) as caught:
            async with use(soon(), "SELECT things"):
                raise AssertionError("a connection")
        assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE
    assert not database.available
    async with aclosing(database.changes()) as changes:
        assert not await anext(changes)


async def test_it_tells_when_it_is_there(database: Database) -> None:
    async with aclosing(database.changes()) as changes:
        assert await anext(changes)
    assert database.available


async def test_process_ends_right_after_its_last_statement(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        async with opened(database_url) as database, database.reading(soon(), "SELECT things") as connection:
            await connection.execute(text("SELECT 1"))
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_each_use_has_a_span_that_knows_where_and_not_what(
    database: Database, database_url: str, spans: InMemorySpanExporter
) -> None:
    with measured() as seen, tracing.span(telemetry.RPC_SERVER, "call"):
        await write(database, "secret")
        await names(database)
        with pytest.raises(IntegrityError):
            await write(database, "secret")
        async with database.transaction(soon(), "DELETE things") as connection:
            await connection.execute(text("DELETE FROM things"))
        durations = {
            operation: seen.value(telemetry.DB_DURATION, {telemetry.DB_OPERATION: operation})
            for operation in ("INSERT", "SELECT", "DELETE")
        }
    *questions, call = spans.get_finished_spans()
    assert [question.name for question in questions] == [
        "INSERT thing",
        "SELECT things",
        "INSERT thing",
        "DELETE things",
    ]
    assert all(question.parent == call.context for question in questions)
    assert durations == {"INSERT": 2, "SELECT": 1, "DELETE": 1}
    written, _, failed, _ = (dict(question.attributes or {}) for question in questions)
    assert failed == written | {telemetry.ERROR_TYPE: "IntegrityError"}
    server = database_url.rpartition("@")[2].partition("/")[0]  # of a file: nothing
    is_file = database_url.startswith("sqlite")
    assert written[telemetry.DB_SYSTEM] == ("sqlite" if is_file else "postgresql")
    told = f"{written.get(telemetry.SERVER_ADDRESS)}:{written.get(telemetry.SERVER_PORT)}"
    assert told == ("None:None" if is_file else server)
    shown = "".join(question.to_json() for question in questions)
    assert not [secret for secret in ("secret", PASSWORD, f"{USER}:", "test_", "emptied") if secret in shown]


async def test_the_wait_for_a_connection_is_part_of_it(database: Database, spans: InMemorySpanExporter) -> None:
    release = asyncio.Event()

    async def hold() -> None:
        async with database.reading(soon(), "SELECT 1") as connection:
            await connection.execute(text("SELECT 1"))
            await release.wait()

    holders = [asyncio.create_task(hold()) for _ in range(sum(POOL.values()))]
    await until(all_are_used(database))
    with tracing.span(telemetry.RPC_SERVER, "call"):
        await fails(database, Deadline.after(0.05))
    release.set()
    await asyncio.gather(*holders)
    question = spans.get_finished_spans()[0]
    assert (question.attributes or {})[telemetry.ERROR_TYPE] == "DATABASE_UNAVAILABLE"
    assert (question.end_time or 0) - (question.start_time or 0) > 40e6  # nanoseconds


def all_are_used(database: Database) -> Callable[[], Awaitable[bool]]:
    async def used() -> bool:
        return database.pool.checked_out == sum(POOL.values())

    return used


async def test_connections_and_presence_can_be_looked_up(database_url: str, spans: InMemorySpanExporter) -> None:
    pool = {telemetry.DB_POOL: "sql"}
    used, idle = ({**pool, telemetry.DB_CONNECTION_STATE: state} for state in ("used", "idle"))
    with measured() as seen:
        async with opened(database_url, **POOL) as database:
            assert seen.value(telemetry.DB_AVAILABLE) == 0
            assert len(seen.points(telemetry.DB_AVAILABLE)) == 1
            await until(is_there(database))
            async with database.reading(soon(), "SELECT 1"), database.reading(soon(), "SELECT 1"):
                assert (seen.value(telemetry.DB_CONNECTIONS, used), seen.value(telemetry.DB_AVAILABLE)) == (2, 1)
            assert (seen.value(telemetry.DB_CONNECTIONS, used), seen.value(telemetry.DB_CONNECTIONS, idle)) == (0, 2)
            assert seen.value(telemetry.DB_CONNECTIONS_MAX, pool) == sum(POOL.values())
        assert seen.value(telemetry.DB_DURATION) == 2  # looks and migrations are nobody's questions
    assert not spans.get_finished_spans()
