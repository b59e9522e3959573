"""Conversations in the SQL database."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from chassis.database import Database
from chassis.deadline import Deadline
from router_service.conversations.conversation import Exchange, Past, Session, SessionNotFound, Turn
from router_service.conversations.page_token import decode_token, encode_token, invalid_token

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

TITLE_CHARACTERS: Final = 80
EXPORT_PAGE: Final = 200
DELETED_AT_ONCE: Final = 100  # sessions of one transaction, whose turns go with them
DELETED_AT_MOST: Final = 1000
QUICK_SECONDS: Final = 0.1
_SESSIONS, _OLDEST, _NEWEST = "s", "o", "n"  # kinds of page tokens
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LARGEST: Final = (1 << 63) - 1


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SqlConversations:
    """See Conversations. `recall` returns the newest `recalled_turns` turns that the summary does not cover."""

    def __init__(self, database: Database, *, recalled_turns: int = 64, now: Callable[[], datetime] = _utc_now) -> None:
        self._database = database
        self._recalled_turns = recalled_turns
        self._now = now

    @cached_property
    def _sql(self) -> ModuleType:
        """Imported with the first use: SQLAlchemy is none of the start's business."""
        from router_service.conversations import statements

        return statements

    async def recall(self, owner: str, session_id: str, deadline: Deadline) -> Past:
        """As in Conversations. One exchange of messages."""
        async with self._database.reading(deadline, "SELECT session turns") as connection:
            statement = self._sql.RECALL[connection.dialect.name]
            values = _given(owner=owner, session_id=session_id) | {"limit": self._recalled_turns}
            rows = (await connection.execute(statement, values)).all()
        if not rows:
            return Past()
        turns = sorted((_turn(row) for row in rows if row.pk is not None), key=lambda turn: turn.turn_id)
        return Past(rows[0].reference, rows[0].summary, turns, rows[0].last_persona)

    async def append(self, owner: str, session_id: str, past: Past, exchange: Exchange, deadline: Deadline) -> bool:
        """As in Conversations. On PostgreSQL one exchange of messages."""
        async with self._database.writing(deadline, "INSERT turn") as connection:
            at = self._now()
            values = _given(owner=owner, session_id=session_id, created_at=at, updated_at=at, **asdict(exchange))
            if past.reference is None:
                values |= _given(title=title_of(exchange.message))
            else:
                values |= _given(session=past.reference)
            return await self._append(connection, values, begins=past.reference is None)

    async def _append(self, connection: AsyncConnection, values: dict[str, Any], *, begins: bool) -> bool:
        if connection.dialect.name == "postgresql":
            statement = self._sql.BEGIN_AND_APPEND if begins else self._sql.CONTINUE_AND_APPEND
            return (await connection.execute(statement, values)).first() is not None
        statement = self._sql.BEGIN_SESSION if begins else self._sql.CONTINUE_SESSION
        session = (await connection.execute(statement, values)).scalar()
        if session is None:
            return False
        await connection.execute(self._sql.APPEND, values | _given(session=session))
        return True

    async def list_sessions(
        self, owner: str, page_size: int, page_token: str, deadline: Deadline
    ) -> tuple[Sequence[Session], str]:
        """As in Conversations."""
        updated_at, pk = _session_place(page_token)
        async with self._database.reading(deadline, "SELECT sessions") as connection:
            values = _given(owner=owner, updated_at=updated_at, pk=pk) | {"limit": page_size + 1}
            rows = (await connection.execute(self._sql.LIST_SESSIONS, values)).all()
        page, more = rows[:page_size], len(rows) > page_size
        token = encode_token(_SESSIONS, ((page[-1].updated_at - _EPOCH) // _MICROSECOND, page[-1].pk)) if more else ""
        return [_session(row) for row in page], token

    async def session(self, owner: str, session_id: str, deadline: Deadline) -> Session:
        """As in Conversations."""
        async with self._database.reading(deadline, "SELECT session") as connection:
            row = (await connection.execute(self._sql.SESSION, _given(owner=owner, session_id=session_id))).first()
        if row is None:
            raise SessionNotFound
        return _session(row, row.summary)

    async def list_turns(
        self,
        owner: str,
        session_id: str,
        page_size: int,
        page_token: str,
        deadline: Deadline,
        *,
        newest_first: bool = False,
    ) -> tuple[Sequence[Turn], str]:
        """As in Conversations."""
        kind = _NEWEST if newest_first else _OLDEST
        (place,) = decode_token(kind, page_token, 1) if page_token else (_LARGEST if newest_first else 0,)
        turns = await self._turns(owner, session_id, place, page_size + 1, deadline, newest_first=newest_first)
        page = turns[:page_size]
        return page, encode_token(kind, (page[-1].turn_id,)) if len(turns) > page_size else ""

    async def _turns(
        self, owner: str, session_id: str, place: int, limit: int, deadline: Deadline, *, newest_first: bool = False
    ) -> Sequence[Turn]:
        """Those beyond the turn `place`. Raises SessionNotFound."""
        async with self._database.reading(deadline, "SELECT turns") as connection:
            statement = self._sql.NEWEST_TURNS if newest_first else self._sql.OLDEST_TURNS
            values = _given(owner=owner, session_id=session_id, pk=place) | {"limit": limit}
            rows = (await connection.execute(statement, values)).all()
        if not rows:  # no session is without turns: it is gone, or the place is beyond its last
            await self.session(owner, session_id, deadline)
        return [_turn(row) for row in rows]

    async def export(self, owner: str, session_id: str, deadline: Deadline) -> AsyncGenerator[Turn, None]:
        """As in Conversations. No connection is held while turns are on their way to the caller."""
        place, turns = 0, await self._turns(owner, session_id, 0, EXPORT_PAGE, deadline)
        while turns:
            for turn in turns:
                yield turn
            place = turns[-1].turn_id
            more = len(turns) == EXPORT_PAGE
            turns = await self._turns(owner, session_id, place, EXPORT_PAGE, deadline) if more else ()

    async def delete(self, owner: str, session_id: str, deadline: Deadline) -> None:
        """As in Conversations."""
        async with self._database.writing(deadline, "DELETE session") as connection:
            deleted = (await connection.execute(self._sql.DELETE, _given(owner=owner, session_id=session_id))).rowcount
        if not deleted:
            raise SessionNotFound

    async def summarise(self, past: Past, covered: int, summary: str, deadline: Deadline) -> bool:
        """As in Conversations."""
        async with self._database.writing(deadline, "UPDATE summary") as connection:
            values = _given(session=past.reference, summary=summary, covered=covered)
            values["known_summary"] = past.summary
            return bool((await connection.execute(self._sql.SUMMARISE, values)).rowcount)

    async def delete_older_than(self, seconds: float, deadline: Deadline) -> int:
        """As in Conversations. In several transactions, more at once while that is quick: sessions may be long, and a
        statement that takes too long would pass for a database that is away. What was deleted stays so."""
        before, total, at_once = self._now() - timedelta(seconds=seconds), 0, 1
        while total < DELETED_AT_MOST:
            started = time.monotonic()
            async with self._database.writing(deadline, "DELETE sessions") as connection:
                at_once = min(at_once, DELETED_AT_MOST - total)
                values = _given(updated_at=before) | {"limit": at_once}
                deleted: int = (await connection.execute(self._sql.DELETE_OLDEST, values)).rowcount
            total += deleted
            if deleted < at_once:
                break
            quick = time.monotonic() - started < QUICK_SECONDS
            at_once = min(2 * at_once, DELETED_AT_ONCE) if quick else max(1, at_once // 2)
        return total


def title_of(message: str) -> str:
    """The beginning of a message, in one line."""
    line = " ".join(message.split())
    return line if len(line) <= TITLE_CHARACTERS else line[: TITLE_CHARACTERS - 1].rstrip() + "…"


def _given(**values: Any) -> dict[str, Any]:
    """Values of columns, as `statements` asks for them."""
    return {f"given_{column}": _storable(value) for column, value in values.items()}


def _storable(value: Any) -> Any:
    """PostgreSQL has no text with the character 0."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def _turn(row: Any) -> Turn:
    exchange = Exchange(row.message, row.reply, row.persona, row.resonance_key, row.confidence, row.model)
    return Turn(row.pk, row.created_at, exchange)


def _session(row: Any, summary: str = "") -> Session:
    return Session(row.session_id, row.created_at, row.updated_at, row.turns, row.persona, row.title, summary)


def _session_place(page_token: str) -> tuple[datetime, int]:
    if not page_token:
        return _LATEST, _LARGEST
    microseconds, pk = decode_token(_SESSIONS, page_token, 2)
    try:
        return _EPOCH + timedelta(microseconds=microseconds), pk
    except OverflowError:
        raise invalid_token() from None
