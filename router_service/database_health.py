"""Tells in the health service whether the database is there: the router serves without it, but remembers nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Final

from grpc_health.v1 import health as health_service

from chassis.database import Database
from chassis.server import NOT_SERVING, SERVING

NAME: Final = "database"


@asynccontextmanager
async def publishing(database: Database, health: health_service.aio.HealthServicer) -> AsyncIterator[None]:
    """As the status of NAME, until the block ends; nothing before it is known."""
    task = asyncio.get_running_loop().create_task(_keep_publishing(database, health))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_publishing(database: Database, health: health_service.aio.HealthServicer) -> None:
    async with aclosing(database.changes()) as changes:
        async for available in changes:
            await health.set(NAME, SERVING if available else NOT_SERVING)
