"""What the health service says of the database."""

from __future__ import annotations

import asyncio

import pytest
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2

from chassis.database import NoDatabase, open_database
from chassis.server import NOT_SERVING, SERVING
from router_service.assembly import HISTORY
from router_service.database_health import NAME, publishing
from router_service.settings import RouterSettings


@pytest.fixture
def health() -> health_service.aio.HealthServicer:
    return health_service.aio.HealthServicer()


def status(health) -> health_pb2.HealthCheckResponse.ServingStatus | None:
    """None where nothing is said."""
    return health._server_status.get(NAME)


async def until_said(health, wanted) -> None:
    async with asyncio.timeout(20):
        while status(health) != wanted:
            await asyncio.sleep(0.01)


async def test_it_says_that_the_database_is_there(health, database):
    async with publishing(database, health):
        await until_said(health, SERVING)


async def test_it_says_that_the_database_is_away(health, tmp_path):
    (tmp_path / "file").touch()
    nowhere = RouterSettings(state_dir=tmp_path / "file" / "below")
    async with open_database(nowhere, [HISTORY]) as database, publishing(database, health):
        await until_said(health, NOT_SERVING)


class Switched(NoDatabase):
    """Comes and goes as the test says."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[bool] = asyncio.Queue()

    async def changes(self):
        while True:
            yield await self.news.get()


async def test_it_follows_each_change_and_says_nothing_before(health):
    database = Switched()
    async with publishing(database, health):
        assert status(health) is None
        for available, said in ((True, SERVING), (False, NOT_SERVING), (True, SERVING)):
            database.news.put_nowait(available)
            await until_said(health, said)
