"""API keys in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chassis.access.keys import ApiKey, KeyInfo, StoredKey
from chassis.access.rates import is_tier
from chassis.database import Database, History
from chassis.deadline import Deadline
from chassis.errors import InvalidField

if TYPE_CHECKING:
    from sqlalchemy import Table

HISTORY: Final = History("access", Path(__file__).parent / "migrations")
MAX_NAME_LENGTH: Final = 100


class KeyStore:
    """Every method raises IonError(DATABASE_UNAVAILABLE) where the database does not answer in `timeout_seconds`."""

    def __init__(self, database: Database, *, timeout_seconds: float = 2.0) -> None:
        self._database = database
        self._timeout_seconds = timeout_seconds

    async def create(self, name: str, tier: str = "", expires_in: timedelta | None = None) -> tuple[KeyInfo, str]:
        """A new key, and its text, which is nowhere kept. Raises InvalidField."""
        _check(name, tier, expires_in)
        key, now = ApiKey.new(), datetime.now(UTC)
        info = KeyInfo(key.id, name, tier, now, now + expires_in if expires_in else None)
        async with self._database.writing(self._deadline(), "INSERT key") as connection:
            await connection.execute(_table().insert().values(secret_hash=key.secret_hash, **asdict(info)))
        return info, key.text

    async def list(self) -> Sequence[KeyInfo]:
        """All keys, newest first, those that are revoked or expired among them."""
        async with self._database.reading(self._deadline(), "SELECT keys") as connection:
            keys = _table()
            query = keys.select().order_by(keys.c.created_at.desc(), keys.c.id)
            return [_info(row) for row in await connection.execute(query)]

    async def revoke(self, key_id: str) -> bool:
        """The key opens nothing any more, after ten seconds at most. False where there is no such key; one that was
        revoked before stays so since then."""
        async with self._database.transaction(self._deadline(), "UPDATE key") as connection:
            keys = _table()
            has_id = keys.c.id == key_id
            valid = keys.update().where(has_id, keys.c.revoked_at.is_(None))
            await connection.execute(valid.values(revoked_at=datetime.now(UTC)))
            return (await connection.execute(keys.select().where(has_id))).first() is not None

    async def find(self, key_id: str) -> StoredKey | None:
        async with self._database.reading(self._deadline(), "SELECT key") as connection:
            keys = _table()
            row = (await connection.execute(keys.select().where(keys.c.id == key_id))).first()
        return StoredKey(_info(row), bytes(row.secret_hash)) if row else None

    def _deadline(self) -> Deadline:
        return Deadline.after(self._timeout_seconds)


def _table() -> Table:
    """Imported with the first use, when the database has imported SQLAlchemy in its own thread."""
    from chassis.access.tables import api_keys

    return api_keys


def _info(row: Any) -> KeyInfo:
    return KeyInfo(
        row.id, row.name, row.tier, *(_utc(time) for time in (row.created_at, row.expires_at, row.revoked_at))
    )


def _utc(time: Any) -> Any:
    """SQLite gives times back without their zone."""
    return time.replace(tzinfo=UTC) if time and time.tzinfo is None else time


def _check(name: str, tier: str, expires_in: timedelta | None) -> None:
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidField("name", f"must be 1 to {MAX_NAME_LENGTH} characters that can be printed")
    if tier and not is_tier(tier):
        raise InvalidField("tier", "must be 1 to 32 of a-z, 0-9, - and _")
    if expires_in is not None and expires_in <= timedelta():
        raise InvalidField("expires_in", "must be in the future")
