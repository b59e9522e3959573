"""Brings tables up to date. Several processes may do so at once: one does, the others find it done.

A history is looked at without Alembic, which is imported where there is something to do.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, exc, text

from chassis.database import DatabaseSettings, History
from chassis.sql_engine import Engine, trouble_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

_LOCK: Final = zlib.crc32(b"ion migrations")  # one for all: they are short, and rare

_log = logging.getLogger(__name__)


class NewerTables(Exception):
    """The tables are of a later version than this one, which does not know what it would do to them."""

    def __init__(self, history: History, revision: str) -> None:
        super().__init__(f"the tables of {history.name!r} are at revision {revision!r}, unknown to this version")


async def are_current(connection: AsyncConnection, histories: Sequence[History]) -> bool:
    """Whether all tables are as this version wants them. Raises NewerTables."""
    for history in histories:
        revision = await _revision(connection, history)
        known = known_revisions(history)
        if revision is not None and revision not in known:
            raise NewerTables(history, revision)
        if revision != known[-1]:
            return False
    return True


def known_revisions(history: History) -> list[str]:
    """Oldest first."""
    return sorted(path.stem.partition("_")[0] for path in history.folder.glob("[0-9]*.py"))


async def _revision(connection: AsyncConnection, history: History) -> str | None:
    try:
        # The name is not a caller's: it is in the code.
        found = await connection.execute(text(f"SELECT version_num FROM {history.version_table}"))  # noqa: S608
    except exc.DBAPIError as error:
        if trouble_of(error):
            raise
        return None  # there is no such table
    revision: str | None = found.scalar()
    return revision


async def migrate(settings: DatabaseSettings, histories: Sequence[History]) -> None:
    """All or nothing, on a connection of its own. It may take as long as the largest table takes."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its own plugins
    engine = Engine(settings, pooled=False)
    async with aclosing(await engine.connect()) as connection:
        await engine.begin(connection)
        if settings.database_file is None:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        for history in histories:
            await connection.run_sync(_upgrade, history)
        await connection.commit()
    await engine.close()
    _log.info("The tables of the database are up to date", extra={"tables": [history.name for history in histories]})


def _upgrade(connection: Connection, history: History) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(history.folder), version_locations=[str(history.folder)])
    environment = EnvironmentContext(Config(), scripts, fn=lambda revision, _: scripts._upgrade_revs("head", revision))
    with environment:
        environment.configure(connection=connection, version_table=history.version_table, transactional_ddl=True)
        environment.run_migrations()
