"""The personas in use: those of the files, as they change."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from watchfiles import awatch

from router_service.personas import (
    Persona,
    PersonaFileError,
    PersonaTable,
    listed,
    persona_files,
    read_persona,
    table_of,
)

# Changes this close together are one: an editor's rename, the halves of a file, a checkout.
_QUIET_MILLISECONDS: Final = 50
_DEBOUNCE_MILLISECONDS: Final = 500
# Looked at this often unasked too: not every file system says what changes on it.
_LOOK_MILLISECONDS: Final = 5_000
_RETRY_SECONDS: Final = 1.0
_log = logging.getLogger(__name__)
logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it would say of each change that there was one


class PersonaStore:
    """The newest usable personas of a directory, followed while `watch()` runs.

    `table` is replaced as a whole: whoever reads it once has one consistent table. `problem` says in one line, without
    the folder, why the newest files are not in use, and is "" when they are. Raises PersonaFileError where the files
    that are there at first cannot be used.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files = _Files(directory)
        self.table = self._files.load()
        self.problem = ""

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Follow the files until the block ends; what changes inside it is noticed at once."""
        task = asyncio.create_task(self.watch())
        await asyncio.sleep(0)  # it has its turn, and sets up the watch
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def watch(self) -> None:
        """Follow the files until cancelled."""
        told = False
        while True:
            try:
                await self._watch_one_directory()
                told = False
            except (OSError, RuntimeError) as error:  # it is gone, or the system has no watch to give
                if not told:
                    _log.warning("the personas folder cannot be watched, only looked at: %s", error)
                told = True
                await asyncio.sleep(_RETRY_SECONDS)
            await self._look()

    async def _watch_one_directory(self) -> None:
        """Until another one stands in its place, which a watch does not notice."""
        watched = _identity(self._directory)
        notices = awatch(
            self._directory,
            watch_filter=None,
            recursive=False,
            step=_QUIET_MILLISECONDS,
            debounce=_DEBOUNCE_MILLISECONDS,
            rust_timeout=_LOOK_MILLISECONDS,
            yield_on_timeout=True,
        )
        async with aclosing(notices):
            first = asyncio.create_task(self._look())  # once the watch is set up: what came before is told by none
            try:
                async for _ in notices:
                    # Now too: a folder that is made anew meanwhile may have the number of the one before.
                    is_gone = _identity(self._directory) != watched
                    await first
                    await self._look()
                    if is_gone or _identity(self._directory) != watched:
                        return
            finally:
                await asyncio.gather(first, return_exceptions=True)  # to its end: one look at a time

    async def _look(self) -> None:
        """Take on the files as they are now; where they cannot be used, the table stays."""
        try:
            table = await asyncio.to_thread(self._files.load_changed)
        except PersonaFileError as error:
            if error.summary != self.problem:
                _log.error("the newest persona files are not in use: %s", "; ".join(str(error).splitlines()))
            self.problem = error.summary
            return
        if table is not None:
            self.table, self.problem = table, ""
            _log.info("personas in use: %s", listed(table.names))


class _Files:
    """The persona files of a directory, each read again only where it has changed. For one thread at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._versions: dict[Path, tuple[int, ...]] = {}
        self._personas: dict[Path, Persona] = {}

    def load(self) -> PersonaTable:
        """All of them. Raises PersonaFileError."""
        return self._read(self._look())

    def load_changed(self) -> PersonaTable | None:
        """As `load`; None where the files are those of the last time."""
        versions = self._look()
        return None if versions == self._versions else self._read(versions)

    def _look(self) -> dict[Path, tuple[int, ...]]:
        return {path: _version(path) for path in persona_files(self._directory)}

    def _read(self, versions: dict[Path, tuple[int, ...]]) -> PersonaTable:
        unchanged = dict(versions.items() & self._versions.items())
        self._personas = {path: persona for path, persona in self._personas.items() if path in unchanged}
        self._versions = versions
        for path in versions:
            if path not in self._personas:
                self._personas[path] = read_persona(path)
        table = table_of(self._directory, {path: self._personas[path] for path in versions})
        table.prepare()
        return table


def _version(path: Path) -> tuple[int, ...]:
    """Differs where the file has been written, replaced or made readable; taken before it is read."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _identity(directory: Path) -> tuple[int, ...]:
    try:
        found = directory.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino
