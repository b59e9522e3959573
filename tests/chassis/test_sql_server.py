"""How PostgreSQL is connected to, and left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

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
    async with (
        opened(postgres_server.empty_database() + query) as database,
        database.reading(soon(), "SELECT things") as connection,
    ):
        name = (await connection.execute(text("SELECT current_setting('application_name')"))).scalar()
    assert name == (query.rpartition("=")[2] or "ion")


@pytest.fixture
async def hung(postgres_server: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a server that hangs."""
    connection = await asyncpg.connect(postgres_server.url, connection_class=_PromptConnection)
    postgres_server.hang()
    yield connection
    postgres_server.resume()


async def test_server_that_hangs_does_not_hold_up_who_leaves(
    hung: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_server, "LAST_SECONDS", 3600.0)
    async with asyncio.timeout(20):
        await hung.close()
    assert hung.is_closed()


async def test_goodbye_is_not_said_for_ever(hung: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_server, "LAST_SECONDS", 0.2)
    await hung.close()
    async with asyncio.timeout(20):
        for ending in tuple(sql_server._endings):
            await ending
    assert hung.is_closed()
