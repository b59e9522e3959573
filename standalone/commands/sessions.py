"""`ion sessions`."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chassis.settings import stop
from standalone.commands.options import Json, NoColour, SessionId, Target, Timeout, User
from standalone.commands.running import clients, finish, refuse_options, run

if TYPE_CHECKING:
    from standalone.client import Router


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    group.callback(
        invoke_without_command=True,
        epilog="Examples:  ion sessions   |   ion sessions --json --limit 100   |   ion sessions show standup",
    )(list_sessions)
    group.command("show", epilog="Examples:  ion sessions show standup   |   ion sessions show --json standup")(show)
    group.command(
        "export",
        epilog="Examples:  ion sessions export standup | wc -l   |   ion sessions export standup --out turns.jsonl",
    )(export)
    group.command("delete", epilog="Examples:  ion sessions delete standup   |   ion sessions delete --yes standup")(
        delete
    )
    app.add_typer(group, name="sessions")


def list_sessions(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most sessions to list.")] = 20,
    user: User = "",
    server: Target = None,
    timeout: Timeout = 30.0,
    no_color: NoColour = False,
    as_json: Json = False,
) -> None:
    """List the sessions that are kept, the one last used first; with a command, show, export or delete one."""
    from standalone.sessions import list_sessions as listed

    if context.invoked_subcommand is not None:
        refuse_options(context)
    else:
        finish(run(listed(_clients(server, timeout), user, limit, as_json=as_json), as_json=as_json))


def show(
    session: SessionId,
    user: User = "",
    server: Target = None,
    timeout: Timeout = 30.0,
    no_color: NoColour = False,
    as_json: Json = False,
) -> None:
    """Show what was said in a session."""
    from standalone.sessions import Which, show_session

    finish(run(show_session(_clients(server, timeout), Which(session, user), as_json=as_json), as_json=as_json))


def export(
    session: SessionId,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="In place of standard output.")] = None,
    user: User = "",
    server: Target = None,
    timeout: Timeout = 30.0,
) -> None:
    """Write all turns of a session, the oldest first, as lines of JSON."""
    from standalone.sessions import Which, export_session

    finish(run(export_session(_clients(server, timeout), Which(session, user), out), as_json=False))


def delete(
    session: SessionId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    user: User = "",
    server: Target = None,
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> None:
    """Delete a session with all that was said in it."""
    from standalone.sessions import Which, delete_session

    if not yes:
        if not sys.stdin.isatty():
            stop("--yes must be given where nobody can be asked")
        typer.confirm(f"Delete the session {session} with all its turns?", abort=True, err=True)
    finish(run(delete_session(_clients(server, timeout), Which(session, user), as_json=as_json), as_json=as_json))


def _clients(target: str | None, timeout_seconds: float) -> AbstractAsyncContextManager[Router]:
    return clients(target, timeout_seconds, keeps_sessions=True)
