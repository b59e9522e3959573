"""`ion sessions`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Final, TextIO

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table
from rich.text import Text

from chassis.settings import stop
from gateway_http import transcripts
from ion.router.v1 import router_pb2
from standalone import show, voices
from standalone.client import Router
from standalone.voices import Voices, harmless

PAGE: Final = 100

Clients = AbstractAsyncContextManager[Router]


@dataclass(frozen=True, slots=True)
class Which:
    """One session of one user."""

    session_id: str
    user_id: str


async def list_sessions(clients: Clients, user_id: str, limit: int, *, as_json: bool) -> bool:
    """Print at most `limit` sessions, the one last used first."""
    async with clients as router:
        found = [session async for session in _sessions(router, user_id, limit)]
        if as_json:
            for session in found:
                show.as_json_line(transcripts.summary_of(session))
        elif found:
            show.out.print(_table(found, await voices.of(router)))
        else:
            show.err.print("No sessions are kept.", style="dim")
    return True


async def _sessions(router: Router, user_id: str, limit: int) -> AsyncIterator[router_pb2.Session]:
    token, left = "", limit
    while left:
        request = router_pb2.ListSessionsRequest(user_id=user_id, page_size=min(left, PAGE), page_token=token)
        page = await router.list_sessions(request)
        for session in page.sessions:
            yield session
        left, token = left - len(page.sessions), page.next_page_token
        if not token:
            return


def _table(sessions: list[router_pb2.Session], known: Voices) -> Table:
    table = Table()
    for column in ("session", "last used", "turns", "persona"):
        table.add_column(column, no_wrap=True, justify="right" if column == "turns" else "left")
    table.add_column("begins with")
    for session in sessions:
        name, title = Text(harmless(session.session_id)), Text(harmless(session.title).replace("\n", " "))
        table.add_row(name, _when(session.updated_at), str(session.turns), known.name(session.persona), title)
    return table


def in_a_line(session: router_pb2.Session) -> str:
    turns = "1 turn" if session.turns == 1 else f"{session.turns} turns"
    times = f"{_when(session.created_at)} to {_when(session.updated_at)}"
    return f"session {harmless(session.session_id)}: {turns}, {times}"


def _when(stamp: Timestamp) -> str:
    return show.when(stamp.ToDatetime(tzinfo=UTC))


async def show_session(clients: Clients, which: Which, *, as_json: bool) -> bool:
    async with clients as router:
        if as_json:
            await _write(router, which, sys.stdout)
        else:
            await _print(router, which)
    return True


async def _print(router: Router, which: Which) -> None:
    session, known = await router.session(which.session_id, which.user_id), await voices.of(router)
    show.out.print(in_a_line(session), style="dim", markup=False)
    if session.summary:
        show.out.print(f"Before, in short: {harmless(session.summary)}", style="dim", markup=False, soft_wrap=True)
    async with aclosing(router.turns(which.session_id, which.user_id)) as turns:
        async for each in turns:
            show.out.print()
            voices.text("> " + each.turn.message.replace("\n", "\n> "))
            known.who(each.turn)
            voices.text(each.turn.reply)


async def export_session(clients: Clients, which: Which, out: Path | None) -> bool:
    """Write each turn as a line of JSON to `out`, which is there whole or not at all, or to standard output."""
    async with clients as router:
        if out is None:
            await _write(router, which, sys.stdout)
        else:
            await _write_file(router, which, out)
    return True


def _drafted(out: Path) -> tuple[Path, Path]:
    """What is written to, and what it then becomes: both the same for what is no file, such as a pipe."""
    if out.exists() and not out.is_file():
        return out, out
    target = out.resolve()
    return target.with_name(f".{target.name}.draft"), target


async def _write_file(router: Router, which: Which, out: Path) -> None:
    """All or nothing, where it is a file."""
    draft, target = _drafted(out)
    try:
        with draft.open("w", encoding="utf-8") as file:
            await _write(router, which, file)
        if draft != target:
            draft.replace(target)
    except OSError as error:
        stop(f"--out={out}: cannot be written: {(error.strerror or 'bad file').lower()}")
    finally:
        if draft != target:
            draft.unlink(missing_ok=True)


async def _write(router: Router, which: Which, file: TextIO) -> None:
    async with aclosing(router.turns(which.session_id, which.user_id)) as turns:
        async for each in turns:
            file.write(show.json_line(transcripts.turn_of(each.turn)))
    file.flush()


async def delete_session(clients: Clients, which: Which, *, as_json: bool) -> bool:
    async with clients as router:
        await router.delete_session(which.session_id, which.user_id)
    if as_json:
        show.as_json_line({"deleted": which.session_id})
    else:
        show.out.print(f"Session {harmless(which.session_id)} is deleted.", markup=False)
    return True
