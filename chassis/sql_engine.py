"""SQLAlchemy over PostgreSQL or SQLite: how connections are made, begun and closed, and what their errors mean.

Importing this imports SQLAlchemy. Connections are in autocommit: a statement that stands alone costs one exchange of
messages, and `begin` starts a transaction.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from enum import Enum, auto
from typing import Any, Final

from sqlalchemy import AsyncAdaptedQueuePool, NullPool, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from chassis.database import DatabaseSettings, PoolUse

ATTEMPT_SECONDS: Final = 0.15  # what one attempt takes at most
BUSY_PAUSE_SECONDS: Final = 0.01  # between attempts to write while another process does


class Trouble(Enum):
    """What an error says about the database: it is away, or it is there and refuses."""

    AWAY = auto()
    REFUSES = auto()


class Engine:
    """Connections as the settings ask for them; none is made before the first is needed. Without a pool each is a new
    one, and nothing of it has a bound in time."""

    def __init__(self, settings: DatabaseSettings, *, pooled: bool = True) -> None:
        self._most = settings.database_pool_size + settings.database_max_overflow
        self._file = settings.database_file
        self._endings: set[asyncio.Task[None]] = set()
        self._engine = _new_engine(settings, self._endings, pooled=pooled)
        # SQLite takes one writer at a time. Those of this process queue here: its own queue is a lottery.
        self._turn = asyncio.Lock() if self._file else nullcontext()

    @property
    def is_file(self) -> bool:
        return self._file is not None

    @property
    def turn(self) -> AbstractAsyncContextManager[None]:
        """To be held while something is written."""
        return self._turn

    @property
    def exhausted(self) -> bool:
        """Whether the next to connect has to wait until another is done."""
        return self.pool.checked_out >= self._most

    @property
    def pool(self) -> PoolUse:
        pool = self._engine.pool
        if not isinstance(pool, AsyncAdaptedQueuePool):
            return PoolUse()
        return PoolUse(pool.size(), pool.checkedout(), max(0, pool.overflow()), pool.checkedin())

    async def connect(self) -> AsyncConnection:
        """A statement is its own transaction, until `begin`. Whatever keeps a connection from being made is raised as
        an error that tells of trouble."""
        try:
            return await self._engine.connect()
        except Exception as error:
            if trouble_of(error) is None:
                raise ConnectionError from error
            raise

    async def begin(self, connection: AsyncConnection, *, seconds: float | None = None) -> None:
        """Start a transaction; on SQLite with the right to write: `seconds` bounds the wait for another process that
        has it."""
        if self._file is None:
            await connection.execution_options(isolation_level="READ COMMITTED")
            return
        until = time.monotonic() + (math.inf if seconds is None else seconds - ATTEMPT_SECONDS)
        while True:
            try:
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
                return
            except exc.OperationalError as error:
                if trouble_of(error) is not Trouble.REFUSES or time.monotonic() > until:
                    raise
                await asyncio.sleep(BUSY_PAUSE_SECONDS)

    async def drop_idle(self) -> None:
        """Close what is idle in the pool: after an absence it may lead nowhere."""
        await self._engine.dispose()

    async def close(self) -> None:
        """Waits until the last file is closed: a thread that reports to an event loop that has ended says so loudly."""
        await self.drop_idle()
        if self._endings:
            await asyncio.wait(self._endings)


def _new_engine(settings: DatabaseSettings, endings: set[asyncio.Task[None]], *, pooled: bool) -> AsyncEngine:
    """Imports the driver that it needs, and not the other."""
    options: dict[str, Any] = _pool_options(settings) if pooled else {"poolclass": NullPool}
    options["hide_parameters"] = True  # they hold what people wrote
    if settings.database_file is not None:
        from chassis.sql_file import new_file_engine

        return new_file_engine(settings.database_file, endings, options)
    from chassis.sql_server import new_server_engine

    url = settings.database_url.get_secret_value() if settings.database_url else ""
    seconds = settings.database_timeout_seconds
    if not pooled:
        return new_server_engine(url, options, connect_seconds=seconds, command_seconds=None)
    options |= {"isolation_level": "AUTOCOMMIT", "pool_pre_ping": settings.database_pre_ping}
    return new_server_engine(url, options, connect_seconds=seconds, command_seconds=seconds)


def _pool_options(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "pool_size": settings.database_pool_size,
        "max_overflow": settings.database_max_overflow,
        "pool_timeout": settings.database_timeout_seconds,
        "pool_recycle": settings.database_pool_recycle_seconds,
        "pool_use_lifo": True,  # so that those beyond the need of quiet hours grow old and are closed
    }


# What begins an SQLSTATE: connection, authorisation, no such database, shutting down or starting.
_AWAY_STATES: Final = ("08", "28", "3D", "57P")
# Read-only, deadlock, out of resources, not ready, stopped by the operator, disk; a plan from before a migration.
_REFUSING_STATES: Final = ("25", "40", "53", "55", "57", "58", "0A000")
_AWAY_CODES: Final = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM}
_REFUSING_CODES: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
}


def trouble_of(error: BaseException) -> Trouble | None:
    """None for an error of a statement itself, and for what does not come from a database at all."""
    if isinstance(error, exc.TimeoutError):
        return Trouble.REFUSES  # all connections are in use
    if isinstance(error, exc.DBAPIError):
        return Trouble.AWAY if error.connection_invalidated else _trouble_of_driver(error.orig)
    return Trouble.AWAY if isinstance(error, OSError) else None  # that of a connection that was not made


def _trouble_of_driver(error: BaseException | None) -> Trouble | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        return Trouble.AWAY if code in _AWAY_CODES else Trouble.REFUSES if code in _REFUSING_CODES else None
    state = getattr(error, "sqlstate", None) or ""
    if state.startswith(_AWAY_STATES):
        return Trouble.AWAY
    return Trouble.REFUSES if state.startswith(_REFUSING_STATES) else None


def cause_of(error: BaseException) -> str:
    """What the log may know of it: a name, and no text, which may hold what people wrote."""
    driver_error = getattr(error, "orig", None) or error
    name = getattr(driver_error, "sqlite_errorname", None)
    return str(name or type(driver_error.__cause__ or driver_error).__name__)
