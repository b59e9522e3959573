"""The table of API keys, as its migrations leave it. Imported with the first use: SQLAlchemy is slow to start."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, LargeBinary, MetaData, String, Table

metadata = MetaData()

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("secret_hash", LargeBinary(32), nullable=False),
    Column("name", String(100), nullable=False),
    Column("tier", String(32), nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
)
