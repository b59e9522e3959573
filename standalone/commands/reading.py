"""`ion route` and `ion eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from chassis.settings import stop
from standalone import completion
from standalone.commands.options import Json, NoColour, Target, Timeout
from standalone.commands.running import clients, finish, run


def add_to(app: typer.Typer) -> None:
    app.command(epilog='Examples:  ion route "왜 이게 안 되죠?"   |   ion route --file samples/messages.jsonl --json')(
        route
    )
    app.command(
        "eval",
        epilog="Examples:  ion eval test.tsv   |   ion eval a.tsv b.tsv.gz --nopunct --compare new.npz --plot eval.png",
    )(evaluate)


def route(
    message: Annotated[str | None, typer.Argument(help="The message to route.")] = None,
    key: Annotated[str | None, typer.Option(help="A resonance key, such as frustrated-burst-expressive.")] = None,
    file: Annotated[
        Path | None, typer.Option(allow_dash=True, help='JSON lines of {"id"?, "message"}; - for standard input.')
    ] = None,
    previous: Annotated[
        str,
        typer.Option(
            "--previous-persona",
            metavar="NAME",
            help="Who answered last; gets a small bonus.",
            autocompletion=completion.personas,
        ),
    ] = "",
    server: Target = None,
    timeout: Timeout = 30.0,
    no_color: NoColour = False,
    as_json: Json = False,
) -> None:
    """Choose a persona for a message, a key or a whole file, without asking a model."""
    from standalone.route import route_file, route_one

    if sum(given is not None for given in (message, key, file)) != 1:
        stop("give exactly one of MESSAGE, --key and --file")
    if previous and file is not None:
        stop('--previous-persona goes with MESSAGE or --key; lines of a file have "previous_persona"')
    opened = clients(server, timeout)
    if file is not None:
        finish(run(route_file(opened, file, as_json=as_json), as_json=as_json))
    finish(run(route_one(opened, message, key, previous, as_json=as_json), as_json=as_json))


def evaluate(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="TSV, plain or .gz, with lang, source, tone, intent and text in its header, and perhaps personas.",
        ),
    ],
    weights: Annotated[Path | None, typer.Option(help="Weights of the reader; by default the shipped ones.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Weights of a second reader, to set beside the first.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the figures into this PNG.")] = None,
    nopunct: Annotated[
        bool, typer.Option("--nopunct", help="Read them without punctuation too, as of the sources <source>_nopunct.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure how well messages are read, against labelled ones, and whether they reach one of their personas."""
    from standalone.evaluate import evaluate as score

    score(files, weights, compare, plot, nopunct=nopunct, as_json=as_json)
