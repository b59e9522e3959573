"""The methods on sessions: each sees those of its caller alone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import Final

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.deadline import Deadline
from chassis.errors import InvalidField
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service.conversations.conversation import Conversations, Session, Turn
from router_service.conversations.owner import current_owner
from router_service.requests import check_id

MAX_PAGE_SIZE: Final = 100
DEFAULT_PAGE_SIZE: Final = 20
# Of the turns of a page, as they travel: messages may have 4 MiB.
MAX_PAGE_BYTES: Final = 3 << 20


class SessionsServicer(router_pb2_grpc.PersonaRouterServiceServicer):
    """The part of the servicer that is about sessions."""

    def __init__(self, conversations: Conversations, *, request_timeout_seconds: float) -> None:
        self._conversations = conversations
        self._request_timeout_seconds = request_timeout_seconds

    async def ListSessions(
        self, request: router_pb2.ListSessionsRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.ListSessionsResponse:
        sessions, token = await self._conversations.list_sessions(
            owner(request.user_id), page_size(request.page_size), request.page_token, self._time(context)
        )
        return router_pb2.ListSessionsResponse(sessions=map(session_message, sessions), next_page_token=token)

    async def GetSession(
        self, request: router_pb2.GetSessionRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.GetSessionResponse:
        session_id = checked_session_id(request.session_id)
        session = await self._conversations.session(owner(request.user_id), session_id, self._time(context))
        return router_pb2.GetSessionResponse(session=session_message(session))

    async def ListTurns(
        self, request: router_pb2.ListTurnsRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.ListTurnsResponse:
        size = page_size(request.page_size)
        while True:
            turns, token = await self._conversations.list_turns(
                owner(request.user_id),
                checked_session_id(request.session_id),
                size,
                request.page_token,
                self._time(context),
                newest_first=request.newest_first,
            )
            page = router_pb2.ListTurnsResponse(turns=map(turn_message, turns), next_page_token=token)
            if len(turns) <= 1 or page.ByteSize() <= MAX_PAGE_BYTES:
                return page
            size = len(turns) // 2

    async def DeleteSession(
        self, request: router_pb2.DeleteSessionRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.DeleteSessionResponse:
        session_id = checked_session_id(request.session_id)
        await self._conversations.delete(owner(request.user_id), session_id, self._time(context))
        return router_pb2.DeleteSessionResponse()

    async def ExportSession(
        self, request: router_pb2.ExportSessionRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[router_pb2.ExportSessionResponse, None]:
        session_id = checked_session_id(request.session_id)
        exported = self._conversations.export(owner(request.user_id), session_id, self._time(context))
        async with aclosing(exported) as turns:
            async for turn in turns:
                yield router_pb2.ExportSessionResponse(turn=turn_message(turn))

    def _deadline(self, context: grpc.aio.ServicerContext) -> Deadline:
        return Deadline.of(context, default_seconds=self._request_timeout_seconds)

    def _time(self, context: grpc.aio.ServicerContext) -> Deadline:
        """For the database: its failure can still be told."""
        return self._deadline(context).less_margin()


def owner(user_id: str) -> str:
    """Whose sessions the current call is about. Raises InvalidField."""
    check_id("user_id", user_id)
    return current_owner(user_id)


def checked_session_id(session_id: str) -> str:
    """Raises InvalidField."""
    if not session_id:
        raise InvalidField("session_id", "must not be empty")
    check_id("session_id", session_id)
    return session_id


def page_size(asked: int) -> int:
    """Raises InvalidField."""
    if not 0 <= asked <= MAX_PAGE_SIZE:
        raise InvalidField("page_size", f"must be from 0 to {MAX_PAGE_SIZE}")
    return asked or DEFAULT_PAGE_SIZE


def session_message(session: Session) -> router_pb2.Session:
    return router_pb2.Session(
        session_id=session.session_id,
        created_at=_timestamp(session.created_at),
        updated_at=_timestamp(session.updated_at),
        turns=session.turns,
        persona=session.persona,
        title=session.title,
        summary=session.summary,
    )


def turn_message(turn: Turn) -> router_pb2.Turn:
    exchange = turn.exchange
    return router_pb2.Turn(
        turn_id=turn.turn_id,
        created_at=_timestamp(turn.created_at),
        message=exchange.message,
        reply=exchange.reply,
        persona=exchange.persona,
        resonance_key=exchange.resonance_key,
        confidence=exchange.confidence,
        model=exchange.model,
    )


def _timestamp(time: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
