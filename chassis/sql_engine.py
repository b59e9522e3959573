"""SQLAlchemy over PostgreSQL or SQLite: how connections are made, begun and closed, and what their errors mean.

Importing this imports SQLAlchemy. Connections are in autocommit: a statement that stands alone costs one exchange of
messages, and `begin` starts a transaction.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
import time
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from enum import Enum, auto
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import aiosqlite
import asyncpg  # type: ignore[import-untyped]
from sqlalchemy import URL, AsyncAdaptedQueuePool, NullPool, exc
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from chassis.database import DatabaseSettings, PoolUse

CLOSE_SECONDS: Final = 0.1  # for saying goodbye to a server that may be gone
INTERRUPT_PAUSE_SECONDS: Final = 0.01
BUSY_SECONDS: Final = 0.1  # how long SQLite itself waits for another process
BUSY_PAUSE_SECONDS: Final = 0.01
ITER_CHUNK_SIZE: Final = 64
_SQLALCHEMY_OWN: Final = {"ssl": "sslmode"}  # names in SQLAlchemy's URLs for what libpq's URLs call differently


class Trouble(Enum):
    """What an error says about the database: it is away, or it is there and refuses."""

    AWAY = auto()
    REFUSES = auto()


class _PromptConnection(asyncpg.Connection):  # type: ignore[misc]
    """One whose end is waited for only shortly: a server that hangs must not hold up who gives up on it."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the driver's own name
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await super().close(timeout=timeout)
        except TimeoutError:
            self.terminate()


class _PromptFile(aiosqlite.Connection):
    """As for PostgreSQL: the thread is told to stop what it does, and not waited for long."""

    async def close(self) -> None:
        file, ending = self._connection, asyncio.create_task(self._end())
        until = time.monotonic() + CLOSE_SECONDS
        while not ending.done() and time.monotonic() < until:
            if file is not None:
                file.interrupt()  # again and again: it does nothing to a statement that has not quite begun
            await asyncio.wait((ending,), timeout=INTERRUPT_PAUSE_SECONDS)

    async def _end(self) -> None:
        """The transaction first: a file that is closed while a cursor of it lives stays open, with its locks."""
        with suppress(Exception):
            await self.rollback()
        stopped = self.stop()
        if stopped is not None:
            await stopped


class Engine:
    """Connections as the settings ask for them; none is made before the first is needed. Without a pool each is a new
    one, and nothing of it has a bound in time."""

    def __init__(self, settings: DatabaseSettings, *, pooled: bool = True) -> None:
        self._most = settings.database_pool_size + settings.database_max_overflow
        self._file = settings.database_file
        options: dict[str, Any] = _pool_options(settings) if pooled else {"poolclass": NullPool}
        options["hide_parameters"] = True  # they hold what people wrote
        self._engine = _file_engine(self._file, options) if self._file else _server_engine(settings, options)
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
        return PoolUse(pool.size(), pool.checkedout(), max(0, pool.overflow()))

    def connect(self) -> AsyncConnection:
        """To be awaited; a statement is then its own transaction, until `begin`."""
        return self._engine.connect()

    async def begin(self, connection: AsyncConnection, *, seconds: float | None = None) -> None:
        """Start a transaction; on SQLite with the right to write: `seconds` bounds the wait for another process that
        has it."""
        if self._file is None:
            await connection.execution_options(isolation_level="READ COMMITTED")
            return
        until = time.monotonic() + (math.inf if seconds is None else seconds - BUSY_SECONDS)
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


def _pool_options(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "pool_size": settings.database_pool_size,
        "max_overflow": settings.database_max_overflow,
        "pool_timeout": settings.database_timeout_seconds,
        "pool_recycle": settings.database_pool_recycle_seconds,
        "pool_pre_ping": settings.database_pre_ping and settings.database_file is None,  # a file does not hang up
        "pool_use_lifo": True,  # so that those beyond the need of quiet hours grow old and are closed
    }


def _file_engine(path: Path, options: dict[str, Any]) -> AsyncEngine:
    def open_file() -> _PromptFile:
        file = _PromptFile(partial(_open_file, path), ITER_CHUNK_SIZE)
        file._thread.daemon = True  # as SQLAlchemy does for those that it makes itself
        return file

    url = URL.create("sqlite+aiosqlite", database=str(path))
    return create_async_engine(url, async_creator=open_file, **options)


def _open_file(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")  # what was committed stays, even where the power fails
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _server_engine(settings: DatabaseSettings, options: dict[str, Any]) -> AsyncEngine:
    pooled = "pool_size" in options
    connect_args = {
        "dsn": libpq_url(settings.database_url.get_secret_value() if settings.database_url else ""),
        "timeout": settings.database_timeout_seconds,
        "command_timeout": settings.database_timeout_seconds if pooled else None,
        "connection_class": _PromptConnection,
        "server_settings": {"application_name": "ion"},
    }
    if pooled:
        options["isolation_level"] = "AUTOCOMMIT"
    return create_async_engine("postgresql+asyncpg://", connect_args=connect_args, **options)


def libpq_url(url: str) -> str:
    """The URL as libpq and the driver read it. SQLAlchemy's own form names the driver, and some options otherwise."""
    parts = urlsplit(url)
    query = [(_SQLALCHEMY_OWN.get(name, name), value) for name, value in parse_qsl(parts.query)]
    return urlunsplit(parts._replace(scheme="postgresql", query=urlencode(query)))


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
    if isinstance(error, OSError | asyncpg.PostgresError | asyncpg.InterfaceError | sqlite3.Error):
        return _trouble_of_driver(error) or Trouble.AWAY  # of a connection that was not made
    return None


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
