"""How tables are brought up to date."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from chassis import migrations, presence
from chassis.database import Database, History
from chassis.migrations import are_current, known_revisions
from tests.chassis.things import MAKE_THINGS, add_revision, fails, is_there, names, opened, soon, things, write
from tests.stack.harness import ROOT, until

MADE = "The tables of the database are up to date"
ADD_COLOUR = 'op.add_column("things", sa.Column("colour", sa.Text))'
# Opens the database as a service does, and says what it logged and whether it needed Alembic.
PROGRAM = """
import asyncio, json, logging, sys
from pathlib import Path
from chassis.database import DatabaseSettings, History, open_database
from chassis.deadline import Deadline

logged = []
handler = logging.Handler()
handler.emit = lambda record: logged.append(record.getMessage())
logging.getLogger().addHandler(handler)
logging.getLogger().setLevel(logging.INFO)

async def main(url, folder):
    settings = DatabaseSettings(database_url=url, database_timeout_seconds=20)
    async with open_database(settings, [History("things", Path(folder))]) as database:
        async with database.reading(Deadline.after(60), "SELECT things") as connection:
            await connection.exec_driver_sql("SELECT colour FROM things")

asyncio.run(main(*sys.argv[1:]))
print(json.dumps({"logged": logged, "alembic": "alembic" in sys.modules}))
"""


async def run_program(url: str, history: History) -> Any:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, url, str(history.folder)),
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen"},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return json.loads(output)


async def scalar(database: Database, statement: str) -> Any:
    async with database.reading(soon(), "SELECT things") as connection:
        return (await connection.execute(text(statement))).scalar()


def test_revisions_are_named_by_their_files(tmp_path: Path) -> None:
    history = things(tmp_path)
    add_revision(history, ADD_COLOUR)
    (history.folder / "__init__.py").touch()
    assert known_revisions(history) == ["0001", "0002"]


async def test_tables_are_made_and_later_changed(database_url: str, tmp_path: Path) -> None:
    history = things(tmp_path)
    async with opened(database_url, history) as database:
        await write(database, "old")
        assert await scalar(database, "SELECT version_num FROM ion_things_version") == "0001"
    add_revision(history, ADD_COLOUR)
    async with opened(database_url, history) as database:
        assert await scalar(database, "SELECT count(*) FROM things WHERE colour IS NULL") == 1
        assert await scalar(database, "SELECT version_num FROM ion_things_version") == "0002"


async def test_histories_do_not_know_each_other(database_url: str, tmp_path: Path) -> None:
    other = History("others", tmp_path / "others")
    add_revision(other, 'op.create_table("others", sa.Column("name", sa.Text))')
    async with opened(database_url, things(tmp_path)) as database:
        await write(database, "kept")
    async with opened(database_url, other, things(tmp_path / "again")) as database:
        assert await scalar(database, "SELECT count(*) FROM others") == 0
        assert await names(database) == ["kept"]


async def test_processes_that_start_at_once(database_url: str, tmp_path: Path) -> None:
    """One does it, and no other even tries: it would not get through."""
    history = things(tmp_path)
    add_revision(history, f"__import__('time').sleep(0.5); {ADD_COLOUR}")  # long enough to be met by all
    told = await asyncio.gather(*(run_program(database_url, history) for _ in range(2)))
    assert {line for process in told for line in process["logged"]} <= {MADE}
    async with opened(database_url, history) as database:
        assert await scalar(database, "SELECT count(*) FROM ion_things_version") == 1


async def test_start_with_tables_as_they_are_wanted_does_without_alembic(database_url: str, tmp_path: Path) -> None:
    history = things(tmp_path)
    add_revision(history, ADD_COLOUR)
    assert await run_program(database_url, history) == {"logged": [MADE], "alembic": True}
    assert await run_program(database_url, history) == {"logged": [], "alembic": False}


async def test_migration_that_fails_leaves_nothing_and_is_tried_again(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = History("things", tmp_path / "migrations")
    add_revision(history, MAKE_THINGS)
    broken = add_revision(history, 'op.create_table("half", sa.Column("name", sa.Text)); 1 / 0')
    async with opened(database_url, history) as database:
        await fails(database)
        assert not database.available
        async with opened(database_url) as outside:
            for table in ("things", "half", "ion_things_version"):
                with pytest.raises(Exception, match=table):
                    await scalar(outside, f"SELECT count(*) FROM {table}")
        broken.unlink()
        await until(is_there(database))
        assert await names(database) == []
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == ["The database has tables that cannot be brought up to date"]
    assert warnings[0].exc_info


async def test_tables_of_a_later_version_are_not_touched(
    database_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = things(tmp_path)
    newer = add_revision(history, ADD_COLOUR)
    async with opened(database_url, history) as running:
        await write(running, "new")
        newer.unlink()
        async with opened(database_url, history) as database:
            await fails(database)
            assert not database.available
        assert await names(running) == ["new"]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "The database cannot be used: the tables of 'things' are at revision '0002', unknown to this version"
    ]


async def test_process_that_runs_goes_on_where_a_later_version_changes_the_tables(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []

    async def counted(connection: AsyncConnection, histories: Sequence[History]) -> bool:
        looks.append(None)
        return await are_current(connection, histories)

    monkeypatch.setattr(migrations, "are_current", counted)
    monkeypatch.setattr(presence, "LOOK_SECONDS", 0.02)
    async with opened(database_url, things(tmp_path)) as database:
        async with database.writing(soon(), "INSERT thing") as connection:
            await connection.execute(text("UPDATE ion_things_version SET version_num = '0002'"))
        looked = len(looks)
        await until(_has_more_than(looks, looked + 1))
        assert database.available


def _has_more_than(items: list[None], number: int) -> Callable[[], Awaitable[bool]]:
    async def has_more() -> bool:
        return len(items) > number

    return has_more
