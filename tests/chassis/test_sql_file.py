"""How a SQLite file is closed."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from chassis import sql_database, sql_file
from chassis.sql_file import _PromptFile
from tests.chassis.things import names, opened, things


async def test_file_that_its_thread_has_closed_this_moment(tmp_path: Path) -> None:
    file = await _PromptFile(lambda: sqlite3.connect(tmp_path / "ion.db", check_same_thread=False), set())
    await file._execute(file._conn.close)
    await file.close()
    file._thread.join(20)
    assert not file._thread.is_alive()


async def test_all_files_are_closed_before_the_process_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread would report to an event loop that is no more."""
    opened_files, closed_files = [], []
    make, end = _PromptFile.__init__, _PromptFile._end

    def counted_make(file: _PromptFile, *arguments: Any) -> None:
        opened_files.append(file)
        make(file, *arguments)

    async def counted_end(file: _PromptFile) -> None:
        await end(file)
        closed_files.append(file)

    monkeypatch.setattr(_PromptFile, "__init__", counted_make)
    monkeypatch.setattr(_PromptFile, "_end", counted_end)
    monkeypatch.setattr(sql_file, "CLOSE_SECONDS", 0.0)
    async with opened(f"sqlite:///{tmp_path}/ion.db", things(tmp_path)) as database:
        await names(database)
    assert opened_files
    assert set(closed_files) == set(opened_files)


async def test_process_ends_while_a_file_is_stuck(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []

    async def never(file: _PromptFile) -> None:
        ends.append(file)
        await asyncio.Event().wait()

    monkeypatch.setattr(sql_file, "CLOSE_SECONDS", 0.0)
    monkeypatch.setattr(sql_database, "CLOSE_SECONDS", 0.1)
    async with asyncio.timeout(20), opened(f"sqlite:///{tmp_path}/ion.db", things(tmp_path)) as database:
        await names(database)
        monkeypatch.setattr(_PromptFile, "_end", never)
    for file in ends:
        await file.stop()
