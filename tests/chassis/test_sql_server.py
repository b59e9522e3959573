"""How PostgreSQL is connected to, and left."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy import text

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


async def test_server_that_hangs_does_not_hold_up_who_leaves(postgres_server: Postgres) -> None:
    connection = await asyncpg.connect(postgres_server.url, connection_class=_PromptConnection)
    postgres_server.hang()
    try:
        async with asyncio.timeout(20):
            await connection.close()
            assert connection.is_closed()
    finally:
        postgres_server.resume()
