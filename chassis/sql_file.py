"""SQLite through SQLAlchemy: how its file is opened, and closed in time.

Importing this imports SQLAlchemy.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiosqlite
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

OPEN_SECONDS: Final = 2.0  # how long SQLite itself waits for another process that opens or closes the file as well
BUSY_SECONDS: Final = 0.1  # and for one that writes
CLOSE_SECONDS: Final = 0.1
INTERRUPT_PAUSE_SECONDS: Final = 0.01
ITER_CHUNK_SIZE: Final = 64


def new_file_engine(path: Path, endings: set[asyncio.Task[None]], options: dict[str, Any]) -> AsyncEngine:
    """`endings` gets what is still to come of connections that are closed."""
    url = URL.create("sqlite+aiosqlite", database=str(path))
    open_file = partial(_PromptFile, partial(_open_file, path), endings)
    return create_async_engine(url, async_creator=open_file, **options)


def _open_file(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=OPEN_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA busy_timeout={round(1000 * BUSY_SECONDS)}")
    connection.execute("PRAGMA synchronous=FULL")  # what was committed stays, even where the power fails
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


class _PromptFile(aiosqlite.Connection):
    """Its thread is told to stop what it does, and not waited for long: it may be stuck in the file system."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], endings: set[asyncio.Task[None]]) -> None:
        super().__init__(connect, ITER_CHUNK_SIZE)
        self._thread.daemon = True  # as SQLAlchemy does for those that it makes itself
        self._endings = endings

    async def close(self) -> None:
        file, ending = self._connection, asyncio.create_task(self._end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)
        until = time.monotonic() + CLOSE_SECONDS
        while not ending.done() and time.monotonic() < until:
            if file is not None:
                with suppress(sqlite3.ProgrammingError):  # the thread has closed it this very moment
                    file.interrupt()  # again and again: it does nothing to a statement that has not quite begun
            await asyncio.wait((ending,), timeout=INTERRUPT_PAUSE_SECONDS)

    async def _end(self) -> None:
        """The transaction first: a file that is closed while a cursor of it lives stays open, with its locks."""
        with suppress(Exception):
            await self.rollback()
        stopped = self.stop()
        if stopped is not None:
            await stopped
