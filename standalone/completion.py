"""What the shell is told of persona names and session ids: read from files alone, nothing is started or called.

A completion that cannot be made is none: whoever presses the tab key wants no error among what they type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final

import typer

# An id is whatever a caller chose. Only those that mean nothing to a shell are put on anybody's command line.
_PLAIN: Final = re.compile(r"[A-Za-z0-9._:@+-]+")
_MOST: Final = 50
_WAIT_SECONDS: Final = 0.1
_SESSIONS: Final = "SELECT session_id FROM sessions WHERE owner = ? ORDER BY updated_at DESC"


def personas() -> Iterator[str]:
    from router_service.personas import PersonaFileError, load_personas

    try:
        yield from load_personas(_settings().personas_dir).names
    except (PersonaFileError, ValueError):
        return


def sessions(context: typer.Context, incomplete: str) -> Iterator[str]:
    """Ids that begin so, the one last used first: of the SQLite file, and for the user that the command names."""
    from router_service.conversations.owner import owner_of

    try:
        file = _settings().database_file
    except ValueError:
        return
    if file is None or context.params.get("server"):
        return
    found = _session_ids(str(file.absolute()), owner_of("", context.params.get("user") or ""))
    wanted = (name for name in found if name.startswith(incomplete) and _PLAIN.fullmatch(name))
    yield from (name for name, _ in zip(wanted, range(_MOST), strict=False))


def _session_ids(file: str, owner: str) -> list[str]:
    import sqlite3

    try:
        with closing(sqlite3.connect(f"file:{_escaped(file)}?mode=ro", uri=True, timeout=_WAIT_SECONDS)) as connection:
            return [name for (name,) in connection.execute(_SESSIONS, (owner,))]
    except sqlite3.Error:
        return []


def _escaped(file: str) -> str:
    return file.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _settings() -> Any:
    """Raises ValueError where a value cannot be used."""
    from router_service.settings import RouterSettings

    settings: type[Any] = RouterSettings  # mypy wants its fields as arguments
    return settings()
