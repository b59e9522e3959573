"""`ion personas`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chassis.settings import load
from router_service.settings import RouterSettings
from standalone import completion
from standalone.commands.options import Json, Target, Timeout
from standalone.commands.running import clients, finish, refuse_options, run


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode=None)
    group.callback(
        invoke_without_command=True,
        epilog="Examples:  ion personas   |   ion personas --json   |   ion personas import friend.png",
    )(list_personas)
    group.command(
        "import",
        epilog="Examples:  ion personas import friend.png   |   ion personas import lua.json --into mine --force",
    )(import_persona)
    group.command(
        "export",
        epilog="Examples:  ion personas export Lua   |   ion personas export Lua --out lua.png --image face.png",
    )(export_persona)
    app.add_typer(group, name="personas")


def list_personas(
    context: typer.Context, server: Target = None, timeout: Timeout = 30.0, as_json: Json = False
) -> None:
    """List the personas; with a command, import or export one as a Character Card."""
    from standalone.route import list_personas as listed

    if context.invoked_subcommand is not None:
        refuse_options(context)
    else:
        finish(run(listed(clients(server, timeout), as_json=as_json), as_json=as_json))


def import_persona(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Character Card, version 3 or 2: PNG or JSON.")],
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of persona files; by default ION_PERSONAS_DIR.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the persona that has the name.")] = False,
) -> None:
    """Make a persona file of a Character Card, where it can be used beside the others."""
    from standalone.personas import import_card

    import_card(file, into or load(RouterSettings).personas_dir, force=force)


def export_persona(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="Name of a persona of ION_PERSONAS_DIR.", autocompletion=completion.personas
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Ends in .json or .png; without it JSON is printed.")
    ] = None,
    image: Annotated[
        Path | None, typer.Option(metavar="IN.png", help="Picture of the card; by default one with the name.")
    ] = None,
) -> None:
    """Make a Character Card, version 3, of a persona."""
    from standalone.personas import export_card

    export_card(name, load(RouterSettings).personas_dir, out, image)
