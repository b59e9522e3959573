"""The database behind `open_database`: found in the background, given up on at once while it is known to be away.

No call waits longer than its deadline or `database_timeout_seconds`. A broken connection, or an answer that takes that
long, declares the database away: from then on calls fail at once, until a look in the background finds it again. An
error of a statement, or a refusal such as that of a full disk, does not: the database is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from chassis import telemetry
from chassis.aside import aside
from chassis.database import DatabaseSettings, History, PoolUse
from chassis.deadline import Deadline
from chassis.errors import IonError
from chassis.observability import metrics
from chassis.observability.databases import Question, Server
from chassis.presence import Presence
from ion.error.v1.reason_pb2 import Reason

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from chassis.sql_engine import Engine

MIGRATION_SECONDS: Final = 600.0
CLOSE_SECONDS: Final = 3.0  # for all idle connections, one after the other
LONG_SHARE: Final = 0.9  # of database_timeout_seconds: silence that long is an absence
CLEAN_UP_SECONDS: Final = 0.25  # what a call waits for its rollback, which then goes on without it
_POOL: Final = {telemetry.DB_POOL: "sql"}


class _Call:
    """One use of the database, as far as it matters for what its failure means."""

    __slots__ = ("_asks_since", "absences", "seconds")

    def __init__(self, seconds: float, absences: int) -> None:
        self.seconds = seconds
        self.absences = absences
        self._asks_since: float | None = None

    def ask(self) -> None:
        """From now on it waits for the database, and not for its turn."""
        self._asks_since = time.monotonic()

    def asked_seconds(self) -> float | None:
        return None if self._asks_since is None else time.monotonic() - self._asks_since


class SqlDatabase:
    """See the module, and `chassis.database.Database`. `start` it, and `close` it after its last call."""

    def __init__(self, settings: DatabaseSettings, histories: Sequence[History]) -> None:
        self._settings = settings
        self._patience_seconds = settings.database_timeout_seconds
        self._histories = histories
        self._server = _server_of(settings)
        self._presence = Presence("The database")
        self._engine: Engine | None = None
        self._looking: asyncio.Task[None] | None = None
        self._cleaning: set[asyncio.Task[None]] = set()
        self._uses = 0  # since the last look
        self._had_tables = False  # as they are wanted, once

    def start(self) -> None:
        metrics.observe(telemetry.DB_CONNECTIONS, self._connections)
        most = self._settings.database_pool_size + self._settings.database_max_overflow
        metrics.observe(telemetry.DB_CONNECTIONS_MAX, lambda: [(most, _POOL)])
        metrics.observe(telemetry.DB_AVAILABLE, lambda: [(int(self.available), {})])
        self._looking = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        """Calls that come later fail."""
        if self._looking:
            self._looking.cancel()
            await asyncio.wait((self._looking,))
        if self._cleaning:
            await asyncio.wait(self._cleaning, timeout=CLEAN_UP_SECONDS)
        engine, self._engine = self._engine, None
        if engine:
            with suppress(Exception):  # nothing is left to be lost
                async with asyncio.timeout(CLOSE_SECONDS):
                    await engine.close()

    @property
    def available(self) -> bool:
        """As in Database."""
        return self._presence.available

    def changes(self) -> AsyncGenerator[bool, None]:
        """As in Database."""
        return self._presence.changes()

    @property
    def pool(self) -> PoolUse:
        """As in Database."""
        return self._engine.pool if self._engine else PoolUse()

    def _connections(self) -> Iterable[metrics.Observed]:
        pool = self.pool
        states = {"used": pool.checked_out, "idle": pool.idle}
        return [(number, _POOL | {telemetry.DB_CONNECTION_STATE: state}) for state, number in states.items()]

    @asynccontextmanager
    async def transaction(self, deadline: Deadline, summary: str) -> AsyncIterator[AsyncConnection]:
        """As in Database."""
        async with self._writing(deadline, summary, is_alone=False) as connection:
            yield connection

    @asynccontextmanager
    async def writing(self, deadline: Deadline, summary: str) -> AsyncIterator[AsyncConnection]:
        """As in Database."""
        async with self._writing(deadline, summary, is_alone=True) as connection:
            yield connection

    @asynccontextmanager
    async def _writing(self, deadline: Deadline, summary: str, *, is_alone: bool) -> AsyncIterator[AsyncConnection]:
        async with self._answering(deadline, summary) as call:
            engine = await self._found_engine()
            async with engine.turn, self._connected(engine, call) as connection:
                if not is_alone or engine.is_file:
                    await engine.begin(connection, seconds=call.seconds)
                yield connection
                await connection.commit()

    @asynccontextmanager
    async def reading(self, deadline: Deadline, summary: str) -> AsyncIterator[AsyncConnection]:
        """As in Database."""
        async with self._answering(deadline, summary) as call:
            engine = await self._found_engine()
            async with self._connected(engine, call) as connection:
                yield connection

    async def _found_engine(self) -> Engine:
        if not await self._presence.wait_until_known() or self._engine is None:
            raise IonError(Reason.REASON_DATABASE_UNAVAILABLE)
        return self._engine

    @asynccontextmanager
    async def _connected(self, engine: Engine, call: _Call) -> AsyncIterator[AsyncConnection]:
        """A connection, given back without a trace of what the block did not commit."""
        if not engine.exhausted:
            call.ask()
        connection = await engine.connect()
        call.ask()
        try:
            yield connection
        finally:
            await self._give_back(connection)

    async def _give_back(self, connection: AsyncConnection) -> None:
        """In a task of its own: it is to end whatever becomes of the caller."""
        cleaning = asyncio.create_task(connection.close())
        self._cleaning.add(cleaning)
        cleaning.add_done_callback(self._forget)
        await asyncio.wait((cleaning,), timeout=CLEAN_UP_SECONDS)

    def _forget(self, cleaning: asyncio.Task[None]) -> None:
        self._cleaning.discard(cleaning)
        if not cleaning.cancelled():
            cleaning.exception()  # a connection that is broken at its end has been noticed before

    @asynccontextmanager
    async def _answering(self, deadline: Deadline, summary: str) -> AsyncIterator[_Call]:
        """Bounds the block in time, translates its errors, and tells of it."""
        call = _Call(min(self._patience_seconds, deadline.remaining_seconds()), self._presence.absences)
        with Question(self._server, summary):
            try:
                async with asyncio.timeout(call.seconds):
                    yield call
            except TimeoutError as error:
                self._notice_silence(call)
                raise IonError(Reason.REASON_DATABASE_UNAVAILABLE) from error
            except Exception as error:
                if self._notice(call, error):
                    raise IonError(Reason.REASON_DATABASE_UNAVAILABLE) from error
                raise
        self._uses += 1
        self._presence.use()

    def _notice_silence(self, call: _Call) -> None:
        asked_seconds = call.asked_seconds()
        if not self._presence.is_known:
            return  # who looks is still waiting
        if asked_seconds is None:
            self._presence.refuse("no connection was free")
        elif asked_seconds >= LONG_SHARE * self._patience_seconds:
            self._presence.lose("TimeoutError", absences=call.absences)
        else:
            self._presence.want_look()

    def _notice(self, call: _Call, error: Exception) -> bool:
        """Whether the error is the database's."""
        if isinstance(error, IonError) or self._engine is None:
            return False
        from chassis.sql_engine import Trouble, cause_of, trouble_of

        trouble = trouble_of(error)
        if trouble is Trouble.AWAY:
            self._presence.lose(cause_of(error), absences=call.absences)
        elif trouble is Trouble.REFUSES:
            self._presence.refuse(cause_of(error))
        return trouble is not None

    async def _keep_looking(self) -> None:
        await self._presence.wait_for_first_look()
        try:
            self._engine = await aside(self._new_engine)
        except Exception as error:  # no absence, but an installation that is not whole: it does not get better
            self._presence.lose(type(error).__name__, absences=0, text="cannot be used", error=error)
            return
        while True:
            if not self._is_known_to_answer():
                await self._look(self._engine)
            await self._presence.wait_for_look()

    async def _new_engine(self) -> Engine:
        from chassis import migrations  # noqa: F401 - so that no call waits for the import
        from chassis.sql_engine import Engine

        return Engine(self._settings)

    def _is_known_to_answer(self) -> bool:
        """Others have used it since the last look, or all connections are with those who find out."""
        uses, self._uses = self._uses, 0
        engine = self._engine
        return self.available and bool(uses or (engine and engine.exhausted))

    async def _look(self, engine: Engine) -> None:
        """Find the database, with its tables as they are wanted, or lose it."""
        absences = self._presence.absences
        try:
            await self._find(engine)
        except Exception as error:  # whatever it was, the next look may find it gone
            self._notice_failed_look(error, absences)
        else:
            self._presence.find()

    def _notice_failed_look(self, error: Exception, absences: int) -> None:
        from chassis.migrations import NewerTables
        from chassis.sql_engine import Trouble, cause_of, trouble_of

        trouble = trouble_of(error)
        if trouble is Trouble.REFUSES and self.available:
            self._presence.refuse(cause_of(error))
        elif trouble:
            self._presence.lose(cause_of(error), absences=absences)
        elif isinstance(error, NewerTables):
            self._presence.lose(cause_of(error), absences=absences, text=f"cannot be used: {error}")
        else:
            text = "has tables that cannot be brought up to date"
            self._presence.lose(cause_of(error), absences=absences, text=text, error=error)

    async def _find(self, engine: Engine) -> None:
        from chassis.migrations import migrate

        if not self.available:
            await engine.drop_idle()
        if not await self._has_tables(engine):
            async with asyncio.timeout(MIGRATION_SECONDS):
                await aside(lambda: migrate(self._settings, self._histories))
        self._had_tables = True

    async def _has_tables(self, engine: Engine) -> bool:
        """Newer ones are none at the start; later they are another replica's, which changes them with care."""
        from chassis.migrations import NewerTables, are_current

        call = _Call(self._patience_seconds, self._presence.absences)
        async with asyncio.timeout(call.seconds), self._connected(engine, call) as connection:
            try:
                return await are_current(connection, self._histories)
            except NewerTables:
                if not self._had_tables:
                    raise
                return True


def _server_of(settings: DatabaseSettings) -> Server:
    if settings.database_url is None or settings.database_file is not None:
        return Server("sqlite")
    return Server.of_url("postgresql", settings.database_url.get_secret_value())
