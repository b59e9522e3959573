"""The caller's conversations that are kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

import msgspec
from litestar import HttpMethod, Request, Response, delete, get, route
from litestar.datastructures import State
from litestar.params import HeaderParameter, PathParameter, QueryParameter

from chassis.deadline import Deadline
from gateway_http import transcripts
from gateway_http.parameters import TimeoutHeader, deadline_of
from gateway_http.router_client import RouterClient
from gateway_http.streaming import Format, Streamed
from ion.router.v1 import router_pb2

NDJSON: Final = "application/x-ndjson"
PRIVATE: Final = {"Cache-Control": "no-store"}
EXPORT: Final = Format(NDJSON, lambda turn: msgspec.json.encode(turn) + b"\n", headers=PRIVATE)

UserHeader = Annotated[
    str,
    HeaderParameter(
        name="X-User-Id", max_length=512, description="Whose sessions; as `user_id` of /chat.", required=False
    ),
]
SessionId = Annotated[str, PathParameter(description="As `session_id` of /chat.")]
Limit = Annotated[int, QueryParameter(name="limit", ge=1, le=100, description="Most to return.", required=False)]
Cursor = Annotated[
    str,
    QueryParameter(name="cursor", max_length=512, description="`next_cursor` of the page before.", required=False),
]
Order = Annotated[
    Literal["asc", "desc"], QueryParameter(name="order", description="asc: the oldest first.", required=False)
]


@get("/sessions", tags=["sessions"], response_headers=PRIVATE)
async def list_sessions(
    state: State,
    user_id: UserHeader = "",
    limit: Limit = 20,
    cursor: Cursor = "",
    timeout_seconds: TimeoutHeader = None,
) -> transcripts.SessionList:
    """The caller's sessions, the one last used first."""
    asked = router_pb2.ListSessionsRequest(user_id=_utf8(user_id), page_size=limit, page_token=cursor)
    page = await state.router.list_sessions(asked, deadline_of(state, timeout_seconds))
    sessions = [transcripts.summary_of(session) for session in page.sessions]
    return transcripts.SessionList(sessions, page.next_page_token or None)


@get("/sessions/{session_id:str}", tags=["sessions"], response_headers=PRIVATE)
async def get_session(
    state: State, session_id: SessionId, user_id: UserHeader = "", timeout_seconds: TimeoutHeader = None
) -> transcripts.Session:
    """One session, with its summary."""
    asked = router_pb2.GetSessionRequest(session_id=unquote(session_id), user_id=_utf8(user_id))
    return transcripts.session_of((await state.router.get_session(asked, deadline_of(state, timeout_seconds))).session)


@get("/sessions/{session_id:str}/messages", tags=["sessions"], response_headers=PRIVATE)
async def list_messages(
    state: State,
    session_id: SessionId,
    user_id: UserHeader = "",
    limit: Limit = 20,
    cursor: Cursor = "",
    order: Order = "asc",
    timeout_seconds: TimeoutHeader = None,
) -> transcripts.TurnList:
    """What was said in a session, a page at a time."""
    asked = router_pb2.ListTurnsRequest(
        session_id=unquote(session_id),
        user_id=_utf8(user_id),
        page_size=limit,
        page_token=cursor,
        newest_first=order == "desc",
    )
    page = await state.router.list_turns(asked, deadline_of(state, timeout_seconds))
    return transcripts.TurnList([transcripts.turn_of(turn) for turn in page.turns], page.next_page_token or None)


@get("/sessions/{session_id:str}/export", tags=["sessions"], media_type=NDJSON)
async def export_session(
    request: Request[Any, Any, State],
    state: State,
    session_id: SessionId,
    user_id: UserHeader = "",
    timeout_seconds: TimeoutHeader = None,
) -> Response[transcripts.Turn]:
    """All that was said in a session, oldest first: one object a line. An export that breaks off has no end: the
    connection is cut."""
    asked = router_pb2.ExportSessionRequest(session_id=unquote(session_id), user_id=_utf8(user_id))
    return await Streamed.begun(request, _turns(state.router, asked, deadline_of(state, timeout_seconds)), EXPORT)


@delete("/sessions/{session_id:str}", tags=["sessions"])
async def delete_session(
    state: State, session_id: SessionId, user_id: UserHeader = "", timeout_seconds: TimeoutHeader = None
) -> None:
    """Delete a session with all that was said in it."""
    asked = router_pb2.DeleteSessionRequest(session_id=unquote(session_id), user_id=_utf8(user_id))
    await state.router.delete_session(asked, deadline_of(state, timeout_seconds))


@route("/sessions/{session_id:str}", http_method=[HttpMethod.OPTIONS], status_code=204, include_in_schema=False)
async def session_methods(session_id: SessionId) -> Response[None]:
    """The framework's own answer knows one method of a path alone."""
    return Response(None, headers={"Allow": "DELETE, GET, OPTIONS"})


async def _turns(
    router: RouterClient, asked: router_pb2.ExportSessionRequest, deadline: Deadline
) -> AsyncGenerator[transcripts.Turn, None]:
    async with aclosing(router.export_session(asked, deadline)) as pieces:
        async for piece in pieces:
            yield transcripts.turn_of(piece.turn)


def _utf8(header: str) -> str:
    """Headers are bytes, which the framework takes for Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header
