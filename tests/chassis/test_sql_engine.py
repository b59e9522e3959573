"""What errors mean."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from chassis.database import Database
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.things import names, opened, soon, things, write
from tests.postgres import Postgres


@pytest.mark.parametrize("query", ["?no_such_setting=1", "?sslmode=require", "?target_session_attrs=standby"])
async def test_connection_that_cannot_be_made_is_an_absence(
    postgres_server: Postgres, query: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(postgres_server.url + query) as database:
        await is_refused(database, "SELECT 1")
        assert not database.available
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "The database is away"
    ]


async def is_refused(database: Database, *statements: str) -> None:
    with pytest.raises(IonError) as caught:  # noqa: PT012 - what raises may be any of them
        async with database.writing(soon(), "INSERT thing") as connection:
            for statement in statements:
                await connection.execute(text(statement))
    assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE


async def test_server_that_takes_no_writes_is_there(
    postgres_server: Postgres, tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    url, history = postgres_server.new_database(), things(tmp_path)
    async with opened(url, history) as database:
        await write(database, "before")
    postgres_server.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    async with opened(url, history) as database:
        for _ in range(2):
            await is_refused(database, "INSERT INTO things (name) VALUES ('after')")
        assert database.available
        assert await names(database) == ["before"]
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in warnings] == ["The database refuses"]
    assert warnings[0].cause == "ReadOnlySQLTransactionError"


async def test_file_that_is_full_is_there(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(f"sqlite:///{tmp_path}/ion.db", things(tmp_path)) as database:
        await write(database, "before")
        grow = "INSERT INTO things (name) VALUES (hex(zeroblob(1000000)))"
        await is_refused(database, "PRAGMA max_page_count = 1", grow)
        assert database.available
        assert await names(database) == ["before"]
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [(record.getMessage(), record.cause) for record in warnings] == [("The database refuses", "SQLITE_FULL")]
