"""`ion keys`: in the database that the settings name, whether or not an ION is running."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from rich.table import Table
from rich.text import Text

from chassis.access import AccessSettings
from chassis.access.key_store import HISTORY, KeyStore
from chassis.access.keys import KeyInfo
from chassis.database import open_database
from standalone import show
from standalone.failure import CommandFailed

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_LONGEST: Final = timedelta(days=100 * 365)


def parse_period(text: str) -> timedelta:
    """`90d`: a whole number of seconds, minutes, hours, days or weeks. Raises ValueError saying what is allowed."""
    match = re.fullmatch(r"([1-9][0-9]{0,9})([smhdw])", text)
    if not match or int(match[1]) * _SECONDS[match[2]] > _LONGEST.total_seconds():
        raise ValueError("must be a whole number and one of s, m, h, d, w, at most 36500d, such as 90d")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


@asynccontextmanager
async def _store(settings: AccessSettings) -> AsyncIterator[KeyStore]:
    """Migrated first, where that is needed: the first key may be made before ION has ever run."""
    async with open_database(settings, [HISTORY]) as database:
        yield KeyStore(database, timeout_seconds=settings.request_timeout_seconds)


async def create(settings: AccessSettings, name: str, tier: str, expires: timedelta | None, *, as_json: bool) -> bool:
    """Make a key and print it, once and alone, on standard output."""
    async with _store(settings) as store:
        info, text = await store.create(name, tier, expires)
    if as_json:
        show.as_json_line(_as_dict(info) | {"key": text})
    else:
        show.err.print(f"Key {info.id} ({name}). It is shown this once and kept nowhere:", markup=False)
        show.out.out(text, highlight=False)
    return True


async def list_keys(settings: AccessSettings, *, as_json: bool) -> bool:
    async with _store(settings) as store:
        keys = await store.list()
    if as_json:
        for key in keys:
            show.as_json_line(_as_dict(key))
    else:
        show.out.print(_table(keys))
    return True


async def revoke(settings: AccessSettings, key_id: str, *, as_json: bool) -> bool:
    """Raises CommandFailed where there is no such key."""
    async with _store(settings) as store:
        if not await store.revoke(key_id):
            raise CommandFailed("KEY_NOT_FOUND", "There is no key of that id.")
    if as_json:
        show.as_json_line({"revoked": key_id})
    else:
        show.out.print(f"Key {key_id} is revoked. Running processes know within ten seconds.", markup=False)
    return True


def _as_dict(key: KeyInfo) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tier": key.tier,
        "state": _state(key),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _state(key: KeyInfo) -> str:
    if key.revoked_at:
        return "revoked"
    return "valid" if key.is_valid(datetime.now(UTC)) else "expired"


def _table(keys: Any) -> Table:
    table = Table()
    for column in ("id", "name", "tier", "state", "created", "expires"):
        table.add_column(column, no_wrap=column != "name")
    for key in keys:
        state = _state(key)
        colour = "green" if state == "valid" else "red"
        expires = show.when(key.expires_at) if key.expires_at else "never"
        row = (key.id, Text(key.name), key.tier, Text(state, style=colour), show.when(key.created_at), expires)
        table.add_row(*row)
    return table
