"""What is asked of the tables of conversations, in SQL.

Importing this imports SQLAlchemy. Each statement has an index that it reads by: see `migrations`.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from router_service.conversations.tables import sessions, turns


def _given(column: sa.Column[Any]) -> sa.BindParameter[Any]:
    """A value for the column. SQLAlchemy keeps the column's own name for itself."""
    return sa.bindparam(f"given_{column.name}", type_=column.type)


_owner, _session_id = _given(sessions.c.owner), _given(sessions.c.session_id)
_updated_at, _pk = _given(sessions.c.updated_at), _given(turns.c.pk)
_session = _given(turns.c.session)
_limit = sa.bindparam("limit", type_=sa.Integer)
_this = sa.and_(sessions.c.owner == _owner, sessions.c.session_id == _session_id)

SESSION_COLUMNS: Final = (
    sessions.c.session_id,
    sessions.c.created_at,
    sessions.c.updated_at,
    sessions.c.turns,
    sessions.c.persona,
    sessions.c.title,
)
_told = ("message", "reply", "persona", "resonance_key", "confidence", "model")
TURN_COLUMNS: Final = (turns.c.pk, turns.c.created_at, *(turns.c[name] for name in _told))


def _recall_by_lateral() -> sa.Select[Any]:
    """PostgreSQL stops at the limit here, where it would sort all turns of a plain join."""
    recent = (
        sa.select(*TURN_COLUMNS)
        .where(turns.c.session == sessions.c.pk, turns.c.pk > sessions.c.covered)
        .order_by(turns.c.pk.desc())
        .limit(_limit)
        .lateral("recent")
    )
    return _recall(recent, sa.true())


def _recall_by_join() -> sa.Select[Any]:
    newer = sa.and_(turns.c.session == sessions.c.pk, turns.c.pk > sessions.c.covered)
    return _recall(turns, newer).order_by(turns.c.pk.desc()).limit(_limit)


def _recall(recent: sa.FromClause, on: sa.ColumnElement[bool]) -> sa.Select[Any]:
    session = (sessions.c.pk.label("reference"), sessions.c.summary, sessions.c.persona.label("last_persona"))
    columns = (recent.c[column.name] for column in TURN_COLUMNS)
    return sa.select(*session, *columns).select_from(sessions.outerjoin(recent, on)).where(_this)


# One row a turn, or one row without a turn; none where there is no such session. In no order.
RECALL: Final = {"postgresql": _recall_by_lateral(), "sqlite": _recall_by_join()}

LIST_SESSIONS: Final = (
    sa.select(sessions.c.pk, *SESSION_COLUMNS)
    .where(
        sessions.c.owner == _owner,
        sa.tuple_(sessions.c.updated_at, sessions.c.pk) < sa.tuple_(_updated_at, _pk),
    )
    .order_by(sessions.c.updated_at.desc(), sessions.c.pk.desc())
    .limit(_limit)
)
SESSION: Final = sa.select(*SESSION_COLUMNS, sessions.c.summary).where(_this)

_of_session = turns.c.session == sa.select(sessions.c.pk).where(_this).scalar_subquery()
OLDEST_TURNS: Final = sa.select(*TURN_COLUMNS).where(_of_session, turns.c.pk > _pk).order_by(turns.c.pk).limit(_limit)
NEWEST_TURNS: Final = (
    sa.select(*TURN_COLUMNS).where(_of_session, turns.c.pk < _pk).order_by(turns.c.pk.desc()).limit(_limit)
)

_now = _given(turns.c.created_at)
_exchange = {name: _given(turns.c[name]) for name in _told}
_first = {
    "owner": _owner,
    "session_id": _session_id,
    "created_at": _now,
    "updated_at": _now,
    "persona": _exchange["persona"],
    "turns": 1,
    "title": _given(sessions.c.title),
    "summary": "",
    "covered": 0,
}
_next = {"updated_at": _now, "persona": _exchange["persona"], "turns": sessions.c.turns + 1}


def _begin(insert: Any) -> Any:
    """The session of a turn that began without one: another turn may have made it meanwhile."""
    begun = insert(sessions).values(_first)
    return begun.on_conflict_do_update(index_elements=["owner", "session_id"], set_=_next).returning(sessions.c.pk)


# The session of a turn, without and with a past; a row with its pk, none where it is gone.
BEGIN_SESSION: Final = _begin(sqlite.insert)
CONTINUE_SESSION: Final = (
    sa.update(sessions).where(sessions.c.pk == _session, _this).values(_next).returning(sessions.c.pk)
)
APPEND: Final = sa.insert(turns).values({"session": _session, "created_at": _now, **_exchange})


def _append_to(session: Any) -> sa.Insert:
    """Session and turn in one statement, which only PostgreSQL knows."""
    stored = session.cte("stored")
    values = sa.select(stored.c.pk, _now, *_exchange.values())
    return sa.insert(turns).from_select(["session", "created_at", *_told], values).returning(turns.c.pk)


BEGIN_AND_APPEND: Final = _append_to(_begin(postgresql.insert))
CONTINUE_AND_APPEND: Final = _append_to(CONTINUE_SESSION)

DELETE: Final = sa.delete(sessions).where(_this)
_summary, _covered = _given(sessions.c.summary), _given(sessions.c.covered)
SUMMARISE: Final = (
    sa.update(sessions)
    .where(
        sessions.c.pk == _session,
        sessions.c.summary == sa.bindparam("known_summary", type_=sa.Text),
        sessions.c.covered < _covered,
    )
    .values(summary=_summary, covered=_covered)
)

_oldest = (
    sa.select(sessions.c.pk)
    .where(sessions.c.updated_at < _updated_at)
    .order_by(sessions.c.updated_at)
    .limit(_limit)
    .with_for_update(skip_locked=True)  # on PostgreSQL replicas share the work, and what is used meanwhile stays
)
DELETE_OLDEST: Final = sa.delete(sessions).where(sessions.c.pk.in_(_oldest))
