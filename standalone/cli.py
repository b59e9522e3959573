"""The `ion` command."""

from __future__ import annotations

import io
import sys

import typer

from standalone.commands import chat, keys, load, personas, reading, service, sessions, top
from standalone.commands.running import EXIT_STATUSES

app = typer.Typer(
    help="ION: a chat service with several personas.",
    epilog=EXIT_STATUSES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for group in (service, top, chat, sessions, keys, load, reading, personas):
    group.add_to(app)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has all letters
    app(prog_name="ion")
