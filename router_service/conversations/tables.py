"""The tables of conversations, as the newest of `migrations` leaves them.

Importing this imports SQLAlchemy.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

_number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class Moment(sa.TypeDecorator[datetime]):
    """A time in UTC. SQLite keeps it without its zone, as text that sorts."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        return value and value.replace(tzinfo=UTC)


metadata = sa.MetaData()

# `turns` counts; `covered` is the turn up to which `summary` tells, 0 for none.
sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("pk", _number, primary_key=True),
    sa.Column("owner", sa.String(64)),
    sa.Column("session_id", sa.String(128)),
    sa.Column("created_at", Moment),
    sa.Column("updated_at", Moment),
    sa.Column("persona", sa.Text),
    sa.Column("turns", sa.Integer),
    sa.Column("title", sa.Text),
    sa.Column("summary", sa.Text),
    sa.Column("covered", _number),
)

turns = sa.Table(
    "turns",
    metadata,
    sa.Column("pk", _number, primary_key=True),
    sa.Column("session", _number),
    sa.Column("created_at", Moment),
    sa.Column("message", sa.Text),
    sa.Column("reply", sa.Text),
    sa.Column("persona", sa.Text),
    sa.Column("resonance_key", sa.Text),
    sa.Column("confidence", sa.Double),
    sa.Column("model", sa.Text),
)
