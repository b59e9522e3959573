"""`ion chat`."""

from __future__ import annotations

from typing import Annotated

import typer

from chassis.settings import stop
from standalone import completion
from standalone.commands.options import Json, NoColour, Target, Timeout, User
from standalone.commands.running import clients, failures_told, finish, run

_EXAMPLES = (
    'Examples:  ion chat "I broke the build again"   |   ion chat --persona Elro   |   ion chat --session standup'
    '   |   ion chat --json "hi"'
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(chat)


def chat(
    message: Annotated[str | None, typer.Argument(help="What to say; without it a conversation begins.")] = None,
    persona: Annotated[
        str, typer.Option(metavar="NAME", help="Have this persona answer.", autocompletion=completion.personas)
    ] = "",
    session: Annotated[
        str, typer.Option(metavar="ID", help="Go on with this session.", autocompletion=completion.sessions)
    ] = "",
    new: Annotated[bool, typer.Option("--new", help="Begin a session; its id is shown.")] = False,
    no_session: Annotated[
        bool, typer.Option("--no-session", help="Remember nothing; a conversation is a session otherwise.")
    ] = False,
    user: User = "",
    server: Target = None,
    timeout: Timeout = 30.0,
    no_color: NoColour = False,
    as_json: Json = False,
) -> None:
    """Send a message and see who answers, and why. Without a message, talk: Ctrl-C stops a reply, Ctrl-D ends."""
    from standalone.chat import Manner, new_session_id, say_once

    if sum((bool(session), new, no_session)) > 1:
        stop("give at most one of --session, --new and --no-session")
    is_new = new or not (session or no_session or message is not None)
    manner = Manner(persona, user, new_session_id() if is_new else session, as_json)
    opened = clients(server, timeout, keeps_sessions=bool(manner.session_id))
    if message is not None:
        finish(run(say_once(opened, message, manner, is_new=is_new), as_json=as_json))
    from standalone.conversation import converse

    with failures_told(as_json=as_json):
        converse(opened, manner, is_new=is_new)
