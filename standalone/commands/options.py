"""Options that several commands take."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from standalone import completion


def _turn_off_colours(given: bool) -> bool:
    if given:
        os.environ["NO_COLOR"] = "1"  # before anything that prints is imported
    return given


Target = Annotated[
    str | None,
    typer.Option(
        "--server",
        envvar="ION_ROUTER_TARGET",
        metavar="TARGET",
        help="gRPC target of a running persona router; without it everything runs in this process.",
    ),
]
Timeout = Annotated[float, typer.Option("--timeout", min=0.001, max=3600, help="Seconds to wait for an answer.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line; failures too.")]
User = Annotated[
    str, typer.Option("--user", metavar="ID", help="Whose sessions, at most 128 characters; by default nobody's name.")
]
NoColour = Annotated[
    bool, typer.Option("--no-color", is_eager=True, callback=_turn_off_colours, help="No colours; as NO_COLOR=1.")
]
SessionId = Annotated[str, typer.Argument(metavar="ID", help="Id of a session.", autocompletion=completion.sessions)]
