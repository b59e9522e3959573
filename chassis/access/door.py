"""The door that settings ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.access.settings import AccessSettings
from chassis.caller import Door, OpenDoor
from chassis.database import Database


@asynccontextmanager
async def open_door(settings: AccessSettings, database: Database) -> AsyncIterator[Door]:
    """The door until the block ends. `database` holds the keys, for `api-key`."""
    yield OpenDoor()
