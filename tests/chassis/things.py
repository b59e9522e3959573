"""A table to try a database with, and what makes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from chassis.database import Database, DatabaseSettings, History, open_database
from chassis.deadline import Deadline
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason

_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = {before}


def upgrade():
    {work}
"""
MAKE_THINGS = (
    'op.create_table("things", sa.Column("name", sa.String(40), primary_key=True), sa.Column("size", sa.Integer))'
)


def things(folder: Path) -> History:
    """A history whose newest revision makes the table `things(name, size)`."""
    history = History("things", folder / "migrations")
    add_revision(history, MAKE_THINGS)
    return history


def add_revision(history: History, work: str) -> Path:
    """The next revision, which does the work."""
    history.folder.mkdir(parents=True, exist_ok=True)
    number = len(list(history.folder.glob("*.py"))) + 1
    before = repr(f"{number - 1:04}") if number > 1 else "None"
    path = history.folder / f"{number:04}_step.py"
    path.write_text(_REVISION.format(revision=f"{number:04}", before=before, work=work))
    return path


def opened(
    url: str, *histories: History, timeout_seconds: float = 20.0, **settings: Any
) -> AbstractAsyncContextManager[Database]:
    """Patient by default, so that a slow machine changes nothing."""
    options = DatabaseSettings(database_url=url, database_timeout_seconds=timeout_seconds, **settings)
    return open_database(options, histories)


def soon() -> Deadline:
    """In a long time."""
    return Deadline.after(60)


async def write(database: Database, name: str, size: int = 1) -> None:
    async with database.writing(soon(), "INSERT thing") as connection:
        await connection.execute(
            text("INSERT INTO things (name, size) VALUES (:name, :size)"), {"name": name, "size": size}
        )


async def names(database: Database) -> Sequence[str]:
    async with database.reading(soon(), "SELECT things") as connection:
        return (await connection.execute(text("SELECT name FROM things ORDER BY name"))).scalars().all()


def is_there(database: Database) -> Callable[[], Awaitable[bool]]:
    async def there() -> bool:
        return database.available

    return there


async def fails(database: Database, deadline: Deadline | None = None) -> IonError:
    with pytest.raises(IonError) as caught:
        async with database.reading(deadline or soon(), "SELECT things") as connection:
            await connection.execute(text("SELECT 1"))
    assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE
    return caught.value
