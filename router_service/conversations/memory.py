"""What a chat knows of its session: recalled before the prompt is built, stored before the answer is given.

The database is never waited for longer than ION_DATABASE_TIMEOUT_SECONDS, and than a quarter of what is left of the
call's time: without it the chat goes on, and says so.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import IonError
from ion.router.v1 import router_pb2
from router_service.conversations.conversation import Conversations, Exchange, Past
from router_service.conversations.summary import Summaries

SHARE: Final = 0.25  # of the time the caller has left: the reply itself needs the rest
# For storing a reply that came in the last moment: what the call's margin leaves still reaches the database mostly.
GRACE_SECONDS: Final = 0.05

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recalled:
    """A session as a turn of it begins. `is_known` is False where the database did not answer: its past is then not
    nothing, but nobody knows it."""

    owner: str
    session_id: str
    past: Past
    is_known: bool = True


class Memory:
    """Sessions as the chat uses them. No method raises, but for cancellation: whatever is wrong with what is kept, the
    caller gets an answer."""

    def __init__(self, conversations: Conversations, summaries: Summaries, *, timeout_seconds: float) -> None:
        self._conversations = conversations
        self._summaries = summaries
        self._timeout_seconds = timeout_seconds

    async def recall(self, owner: str, session_id: str, deadline: Deadline) -> Recalled:
        try:
            past = await self._conversations.recall(owner, session_id, self._share_of(deadline))
        except Exception as error:
            _note("session not recalled", error)
            return Recalled(owner, session_id, Past(), is_known=False)
        return Recalled(owner, session_id, past)

    async def keep(
        self, session: Recalled, exchange: Exchange, deadline: Deadline
    ) -> router_pb2.HistoryStatus.ValueType:
        """Store a turn. A session that was not known gets none: it would have an answer that knew nothing of it."""
        if not session.is_known:
            return router_pb2.HISTORY_STATUS_UNAVAILABLE
        within = self._share_of(deadline, at_least=GRACE_SECONDS)
        try:
            stored = await self._conversations.append(session.owner, session.session_id, session.past, exchange, within)
        except Exception as error:
            _note("turn not stored", error)
            return router_pb2.HISTORY_STATUS_UNAVAILABLE
        if not stored:
            return router_pb2.HISTORY_STATUS_SKIPPED
        self._summaries.consider(session.owner, session.past)
        return router_pb2.HISTORY_STATUS_STORED

    def _share_of(self, deadline: Deadline, *, at_least: float = 0.0) -> Deadline:
        share = min(self._timeout_seconds, SHARE * deadline.remaining_seconds())
        return Deadline.after(max(at_least, share))


def _note(what: str, error: Exception) -> None:
    """A database that is away has been told of. Of a defect the kind alone: its text may hold what was said."""
    if isinstance(error, IonError):
        _log.debug(what, extra={"reason": error.reason_name})
    else:
        _log.error("defect: %s", what, extra={"cause": type(error).__name__})
