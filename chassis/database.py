"""The SQL database that keeps conversations and keys: SQLite in a file by default, PostgreSQL in production."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from platformdirs import user_state_path
from pydantic import Field, SecretStr, field_validator

from chassis.deadline import Deadline
from chassis.errors import IonError
from chassis.settings import Seconds, Settings
from ion.error.v1.reason_pb2 import Reason

if TYPE_CHECKING:  # SQLAlchemy costs a quarter of a second of the start: it is imported with the first use
    from sqlalchemy.ext.asyncio import AsyncConnection

_FILE_SCHEMES: Final = ("sqlite", "sqlite+aiosqlite")
_SERVER_SCHEMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")
_ALLOWED_URLS: Final = "must be postgresql://user:password@host[:port]/name or sqlite:///file"


class DatabaseSettings(Settings):
    """Settings of every process that keeps something."""

    database_url: SecretStr | None = Field(
        None,
        validation_alias="DATABASE_URL",
        description="postgresql://user:password@host[:port]/name or sqlite:///file; unset: ion.db in ION_STATE_DIR",
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

    @field_validator("database_url")
    @classmethod
    def _usable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _is_usable(value.get_secret_value()):
            raise ValueError(_ALLOWED_URLS)
        return value

    @property
    def database_file(self) -> Path | None:
        """The SQLite file; None where the database is a PostgreSQL server."""
        if self.database_url is None:
            return self.state_dir / "ion.db"
        scheme, _, rest = self.database_url.get_secret_value().partition(":///")
        return Path(rest).expanduser() if scheme in _FILE_SCHEMES else None


def _is_usable(url: str) -> bool:
    scheme, _, path = url.partition(":///")
    if scheme in _FILE_SCHEMES:
        return bool(path) and not path.startswith((":memory:", "file:")) and "?" not in path and not Path(path).is_dir()
    try:
        parts = urlsplit(url)
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
        return parts.scheme in _SERVER_SCHEMES and all(host.hostname and (host.port or True) for host in hosts)
    except ValueError:  # a port that is no number
        return False


@dataclass(frozen=True, slots=True)
class History:
    """Migrations of some tables: a folder of Alembic revisions, recorded in the table `ion_<name>_version`. A file's
    name begins with its revision, up to the first "_"; these are numbers of one length, in order."""

    name: str
    folder: Path

    @property
    def version_table(self) -> str:
        return f"ion_{self.name}_version"


@dataclass(frozen=True, slots=True)
class PoolUse:
    """Connections: those that are kept open at most (`size`), those in use, those of all beyond `size`, and those that
    are open and idle."""

    size: int = 0
    checked_out: int = 0
    overflow: int = 0
    idle: int = 0


class Database(Protocol):
    """Connections. All three raise IonError(DATABASE_UNAVAILABLE) where the database does not answer within the
    deadline or `database_timeout_seconds`, at once while it is known to be away; errors inside the block are translated
    too. Errors of a statement itself, such as sqlalchemy.exc.IntegrityError, are the caller's and stay what they are.
    A block that is cancelled, or that raises, leaves nothing behind; it is to wait for nothing but the database.
    `summary` is what its span is called: an operation and what it is for, and nothing of a request."""

    @property
    def available(self) -> bool:
        """Whether it answered when it was last used; False until it has been found for the first time."""
        ...

    def changes(self) -> AsyncGenerator[bool, None]:
        """`available`, as soon as it is known and then with each change. Without an end; to be closed."""
        ...

    @property
    def pool(self) -> PoolUse: ...

    def transaction(self, deadline: Deadline, summary: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """All or nothing: committed at the end of the block, rolled back where it raises or is cancelled. What was read
        in it from SQLite no other process changes before it ends; PostgreSQL reads what is committed."""
        ...

    def writing(self, deadline: Deadline, summary: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """For one statement that writes: it is its own transaction, and on PostgreSQL one exchange of messages. On
        SQLite this is `transaction`."""
        ...

    def reading(self, deadline: Deadline, summary: str) -> AbstractAsyncContextManager[AsyncConnection]:
        """For statements that only read and stand alone: each is its own transaction."""
        ...


class NoDatabase:
    """For a process that keeps nothing: never available."""

    available = False
    pool = PoolUse()

    async def changes(self) -> AsyncGenerator[bool, None]:
        yield False
        await asyncio.Event().wait()

    @asynccontextmanager
    async def transaction(self, deadline: Deadline, summary: str) -> AsyncIterator[AsyncConnection]:
        raise IonError(Reason.REASON_DATABASE_UNAVAILABLE)
        yield

    writing = transaction
    reading = transaction


@asynccontextmanager
async def open_database(settings: DatabaseSettings, histories: Sequence[History]) -> AsyncIterator[Database]:
    """The database until the block ends. Never waits for it: it is found, and its tables are brought up to date, in the
    background; calls that come before wait for that, as for any answer."""
    from chassis.sql_database import SqlDatabase

    database = SqlDatabase(settings, histories)
    database.start()
    try:
        yield database
    finally:
        await database.close()
