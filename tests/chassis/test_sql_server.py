"""How PostgreSQL is connected to, and left."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import text

from chassis import sql_server
from chassis.sql_server import _PromptConnection, libpq_url
from tests.chassis.things import opened, soon
from tests.postgres import Postgres

NAMED = "application_name=ion"


@pytest.mark.parametrize(
    ("url", "read"),
    [
        ("postgresql://host/name", f"postgresql://host/name?{NAMED}"),
        ("postgres://ion:secret@host:1/name", f"postgresql://ion:secret@host:1/name?{NAMED}"),
        ("postgresql+asyncpg://host/name?ssl=require", f"postgresql://host/name?{NAMED}&sslmode=require"),
        ("postgresql://host/name?sslmode=verify-full", f"postgresql://host/name?{NAMED}&sslmode=verify-full"),
        ("postgresql://host/name?application_name=mine", "postgresql://host/name?application_name=mine"),
        ("postgresql://ion:p@ss%2Fword@host/name", f"postgresql://ion:p%40ss%2Fword@host/name?{NAMED}"),
        ("postgresql://one:1,two:2/name", f"postgresql://one:1,two:2/name?{NAMED}"),
    ],
)
def test_urls_as_the_driver_reads_them(url: str, read: str) -> None:
    assert libpq_url(url) == read


@pytest.mark.parametrize("query", ["", "?application_name=ion-router"])
async def test_server_knows_who_is_connected(postgres_server: Postgres, query: str) -> None:
    async with opened(postgres_server.empty_database() + query) as database, database.reading(soon()) as connection:
        name = (await connection.execute(text("SELECT current_setting('application_name')"))).scalar()
    assert name == (query.rpartition("=")[2] or "ion")


async def test_server_that_hangs_does_not_hold_up_who_leaves(
    postgres_server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_server, "LAST_SECONDS", 3600.0)
    await leave(postgres_server)
    monkeypatch.setattr(sql_server, "LAST_SECONDS", 0.2)
    await leave(postgres_server)
    await until(has_left)


async def leave(server: Postgres) -> None:
    """A server that does not say goodbye."""
    connection = await asyncpg.connect(server.url, connection_class=_PromptConnection)
    server.hang()
    try:
        async with asyncio.timeout(20):
            await connection.close()
            assert connection.is_closed()
            await until(has_given_up)
    finally:
        server.resume()


