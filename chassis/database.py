"""The SQL database that keeps conversations and keys: SQLite in a file by default, PostgreSQL in production."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from platformdirs import user_state_path
from pydantic import Field, SecretStr

from chassis.deadline import Deadline
from chassis.settings import Seconds, Settings

if TYPE_CHECKING:  # SQLAlchemy costs a quarter of a second of the start: it is imported with the first use
    from sqlalchemy.ext.asyncio import AsyncConnection


class DatabaseSettings(Settings):
    """Settings of every process that keeps something."""

    database_url: SecretStr | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="postgresql+asyncpg://user:password@host/name or sqlite+aiosqlite:///file; unset: a SQLite file",
    )
    state_dir: Path = Field(
        user_state_path("ion"),
        validation_alias="ION_STATE_DIR",
        description="folder of the SQLite file and other local state",
    )
    database_pool_size: int = Field(
        20,
        ge=1,
        le=1000,
        validation_alias="ION_DATABASE_POOL_SIZE",
        description="connections to the database that are kept open",
    )
    database_max_overflow: int = Field(
        40,
        ge=0,
        le=1000,
        validation_alias="ION_DATABASE_MAX_OVERFLOW",
        description="connections beyond these while many are needed",
    )
    database_pool_recycle_seconds: Seconds = Field(
        1800.0,
        validation_alias="ION_DATABASE_POOL_RECYCLE_SECONDS",
        description="seconds after which a connection is opened anew",
    )
    database_pre_ping: bool = Field(
        True,
        validation_alias="ION_DATABASE_PRE_PING",
        description="1: see whether a connection still answers before it is used",
    )
    database_timeout_seconds: Seconds = Field(
        2.0,
        validation_alias="ION_DATABASE_TIMEOUT_SECONDS",
        description="seconds a request waits for the database before it goes on without",
    )


@dataclass(frozen=True, slots=True)
class History:
    """Migrations of some tables: a folder of Alembic revisions, recorded in the table `ion_<name>_version`."""

    name: str
    folder: Path


class Database(Protocol):
    """Connections. Both raise IonError(DATABASE_UNAVAILABLE) where the database does not answer within the deadline or
    `database_timeout_seconds`, at once while it is known to be away; errors inside the block are translated too."""

    def transaction(self, deadline: Deadline) -> AbstractAsyncContextManager[AsyncConnection]:
        """All or nothing: committed at the end of the block, rolled back where it raises or is cancelled."""
        ...

    def reading(self, deadline: Deadline) -> AbstractAsyncContextManager[AsyncConnection]:
        """For statements that stand alone: each is its own transaction."""
        ...


@asynccontextmanager
async def open_database(settings: DatabaseSettings, histories: Sequence[History]) -> AsyncIterator[Database]:
    """The database until the block ends. Never waits for it: migrations run in the background."""
    raise NotImplementedError
    yield
