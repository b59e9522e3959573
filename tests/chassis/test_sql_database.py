"""The database while it is away, hangs, or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from chassis import presence
from chassis.database import Database
from chassis.deadline import Deadline
from chassis.errors import IonError
from tests.chassis.silent_relay import silent_relay
from tests.chassis.things import fails, is_there, names, opened, soon, things, write
from tests.postgres import Postgres, postgres
from tests.stack.harness import until

LITTLE_SECONDS = 0.3  # what a call waits for a server that hangs


@pytest.fixture(scope="module")
def _server() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def server(_server: Postgres) -> Iterator[Postgres]:
    """One that the test may stop."""
    yield _server
    if not _server.runs:
        _server.start()
    _server.resume()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the log says of the database."""
    caplog.set_level("INFO", "chassis.presence")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "chassis.presence"]


def fails_without_waiting(database: Database) -> None:
    for use in (database.reading, database.writing, database.transaction):
        with pytest.raises(IonError):
            use(soon(), "SELECT things").__aenter__().send(None)  # type: ignore[attr-defined]  # its first step is its last


async def test_server_that_goes_and_comes_back(server: Postgres, tmp_path: Path, said: Callable[[], list[str]]) -> None:
    async with opened(server.new_database(), things(tmp_path)) as database:
        await write(database, "before")
        server.kill()
        error = await fails(database)
        assert error.__cause__ is not None
        assert not database.available
        fails_without_waiting(database)
        server.start()
        await until(is_there(database))
        await write(database, "after")
        assert await names(database) == ["after", "before"]  # what was acknowledged survives the kill
    assert said() == ["The database is away", "The database is connected again"]


async def test_server_that_hangs(server: Postgres, tmp_path: Path, said: Callable[[], list[str]]) -> None:
    async with opened(server.new_database(), things(tmp_path), timeout_seconds=LITTLE_SECONDS) as database:
        await until(is_there(database))
        server.hang()
        await asyncio.gather(*(fails(database) for _ in range(8)))
        assert not database.available
        fails_without_waiting(database)
        server.resume()
        await until(is_there(database))
        assert await names(database) == []
    assert said() == ["The database is away", "The database is connected again"]


async def test_rollback_is_not_waited_for_while_the_server_hangs(server: Postgres, tmp_path: Path) -> None:
    async with asyncio.timeout(20), opened(server.new_database(), things(tmp_path), timeout_seconds=3600.0) as database:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - what raises is the block
            async with database.transaction(soon(), "INSERT things") as connection:
                await connection.execute(text("INSERT INTO things (name) VALUES ('half')"))
                server.hang()
                raise ZeroDivisionError
        server.resume()
        assert await names(database) == []


async def test_absence_is_noticed_where_nobody_asks(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.02)
    async with opened(server.new_database(), things(tmp_path)) as database:
        await until(is_there(database))
        server.kill()
        await until(is_not_there(database))


def is_not_there(database: Database) -> Callable[[], Awaitable[bool]]:
    async def gone() -> bool:
        return not database.available

    return gone


async def test_server_that_was_replaced_between_two_calls(
    server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 3600.0)
    async with opened(server.new_database(), things(tmp_path)) as database:
        await write(database, "before")
        server.stop()
        server.start()
        await write(database, "after")  # on a new connection: the old one is tried first
        assert await names(database) == ["after", "before"]
    assert said() == []


async def test_connections_that_lead_nowhere_are_all_given_up(server: Postgres, tmp_path: Path) -> None:
    """With the absence that one of them tells of. Without the ping, which would find out one by one."""
    url = server.new_database()
    async with silent_relay(server.port) as relay:
        url = url.replace(str(server.port), str(relay.port))
        settings = {"timeout_seconds": 1.0, "database_pre_ping": False}
        async with opened(url, things(tmp_path), **settings) as database:
            await meet(database)
            relay.silence()
            await fails(database)
            await until(is_there(database))
            await meet(database)


async def meet(database: Database) -> None:
    """Four connections in use at once."""
    together = asyncio.Barrier(4)

    async def come() -> None:
        async with database.reading(soon(), "SELECT things") as connection:
            await connection.execute(text("SELECT 1"))
            await together.wait()

    await asyncio.gather(*(come() for _ in range(4)))


async def test_server_that_is_not_there_at_the_start(
    server: Postgres, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    url = server.new_database()
    server.stop()
    async with opened(url, things(tmp_path)) as database:
        await fails(database)
        fails_without_waiting(database)
        server.start()
        await until(is_there(database))
        await write(database, "made")
    assert said() == ["The database is away", "The database is connected again"]


async def test_process_ends_while_the_server_hangs(server: Postgres, tmp_path: Path) -> None:
    url = server.new_database()
    async with asyncio.timeout(20):  # far less than the database is waited for
        async with opened(url, things(tmp_path), timeout_seconds=3600.0) as database:
            await write(database, "before")
            server.hang()
            asking = asyncio.create_task(names(database))
            await until(is_in_use(database))
            asking.cancel()
            await asyncio.wait((asking,))
        async with opened(url, timeout_seconds=3600.0) as database:
            looking = asyncio.create_task(names(database))
            await until(is_in_use(database))
        looking.cancel()
        await asyncio.wait((looking,))


def is_in_use(database: Database) -> Callable[[], Awaitable[bool]]:
    async def in_use() -> bool:
        return database.pool.checked_out > 0

    return in_use


async def test_wrong_password_or_name_is_an_absence(server: Postgres, said: Callable[[], list[str]]) -> None:
    async with opened(server.url_of("no_such_database")) as database:
        await fails(database)
    assert said() == ["The database is away"]


async def test_little_time_says_nothing_of_the_database(
    server: Postgres, tmp_path: Path, said: Callable[[], list[str]]
) -> None:
    async with opened(server.new_database(), things(tmp_path)) as database:
        await write(database, "locked")
        async with database.transaction(soon(), "INSERT things") as connection:
            await connection.execute(text("LOCK TABLE things"))
            with pytest.raises(IonError):
                async with database.reading(Deadline.after(0.05), "SELECT things") as late:
                    await late.execute(text("SELECT name FROM things"))
            await fails(database, Deadline.after(0))
            assert database.available
        assert await names(database) == ["locked"]
    assert said() == []


async def test_little_time_brings_on_a_look(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 3600.0)
    async with opened(server.new_database(), things(tmp_path), timeout_seconds=1.0) as database:
        await until(is_there(database))
        server.hang()
        await fails(database, Deadline.after(0.1))
        await until(is_not_there(database))


async def test_server_that_takes_no_more_connections_is_there(
    server: Postgres, monkeypatch: pytest.MonkeyPatch, said: Callable[[], list[str]]
) -> None:
    """Neither calls nor looks, which get none, take it for an absence."""
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.02)
    url = server.new_database()
    server.execute(f"ALTER DATABASE {url.rpartition('/')[2]} CONNECTION LIMIT 1")
    server.execute("CREATE ROLE plain LOGIN")
    async with (
        opened(url.replace("ion:not-a-secret", "plain")) as database,
        database.reading(soon(), "SELECT things") as first,
    ):
        await first.execute(text("SELECT 1"))
        await until(is_said(said))
        await fails(database)
        assert database.available
    assert said() == ["The database refuses"]


def is_said(said: Callable[[], list[str]]) -> Callable[[], Awaitable[bool]]:
    async def something_is() -> bool:
        return bool(said())

    return something_is


async def test_queue_that_is_too_long_is_no_absence(server: Postgres, said: Callable[[], list[str]]) -> None:
    async def work() -> None:
        async with database.reading(soon(), "SELECT things") as connection:
            await connection.execute(text("SELECT pg_sleep(0.25)"))

    few = {"database_pool_size": 1, "database_max_overflow": 0, "timeout_seconds": 1.0}
    async with opened(server.new_database(), **few) as database:
        await until(is_there(database))
        ended = await asyncio.gather(*(work() for _ in range(12)), return_exceptions=True)
        assert any(isinstance(error, IonError) for error in ended)
        assert database.available
    assert said() == ["The database refuses"]


async def test_error_of_a_statement_is_no_absence(server: Postgres, said: Callable[[], list[str]]) -> None:
    async with opened(server.new_database()) as database:
        with pytest.raises(ProgrammingError):
            await names(database)
        assert database.available
    assert said() == []


async def test_file_that_cannot_be_opened(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    in_the_way = tmp_path / "state"
    in_the_way.write_text("a file where a folder should be")
    async with opened(f"sqlite:///{in_the_way}/ion.db", things(tmp_path)) as database:
        await fails(database)
        fails_without_waiting(database)
        in_the_way.unlink()
        await until(is_there(database))
        await write(database, "made")
    assert said() == ["The database is away", "The database is connected again"]


async def test_file_that_another_process_writes_is_waited_for(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    url = f"sqlite:///{tmp_path}/ion.db"
    async with opened(url, things(tmp_path)) as database, opened(url) as other, opened(url) as third:
        await write(database, "before")
        async with other.transaction(soon(), "INSERT things") as connection:
            await connection.execute(text("UPDATE things SET size = 2"))
            waiting = asyncio.create_task(write(database, "after"))
            with pytest.raises(IonError):  # meanwhile, and after longer than SQLite itself waits
                async with third.writing(Deadline.after(0.5), "INSERT thing"):
                    raise AssertionError("two writers")
            assert await names(database) == ["before"]  # who reads does not wait
            assert not waiting.done()
        await waiting
        assert third.available
        assert await names(third) == ["after", "before"]
    assert said() == ["The database refuses"]


async def test_nobody_is_waited_for_longer_than_the_settings_say(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ion.db"
    async with (
        opened(url) as other,
        opened(url, timeout_seconds=LITTLE_SECONDS) as database,
        other.transaction(soon(), "INSERT things"),
    ):
        with pytest.raises(IonError):
            async with asyncio.timeout(20), database.writing(soon(), "INSERT thing"):
                raise AssertionError("two writers")


async def test_writers_of_a_file_queue_in_the_order_they_come_and_hold_nothing_meanwhile(tmp_path: Path) -> None:
    order: list[int] = []

    async def write_number(number: int) -> None:
        async with database.transaction(soon(), "INSERT things") as connection:
            order.append(number)
            await connection.execute(text(f"INSERT INTO things (name) VALUES ('{number}')"))

    async with opened(f"sqlite:///{tmp_path}/ion.db", things(tmp_path)) as database:
        async with database.transaction(soon(), "INSERT things"):
            writers = [asyncio.create_task(write_number(number)) for number in range(12)]
            for _ in range(3):  # with a hop to another thread in each
                await names(database)
            assert database.pool.checked_out == 1
        await asyncio.gather(*writers)
    assert order == list(range(12))


async def test_opening_never_waits(server: Postgres, tmp_path: Path) -> None:
    opening = opened(server.new_database(), things(tmp_path))
    with pytest.raises(StopIteration):  # its first step is its last
        opening.__aenter__().send(None)  # type: ignore[attr-defined]
    await opening.__aexit__(None, None, None)
