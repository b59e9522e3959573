"""The `ion` command."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
import uvloop
from pydantic import ValidationError

from chassis import telemetry
from chassis.errors import IonError
from chassis.settings import Settings, describe, load, stop
from gateway_http.settings import HttpSettings
from llm_gateway.settings import LlmSettings
from router_service.settings import RouterSettings

T = TypeVar("T")
_ALL_SETTINGS: tuple[Any, ...] = (HttpSettings, RouterSettings, LlmSettings)

app = typer.Typer(
    help="ION: a chat service with several personas.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
personas_app = typer.Typer(rich_markup_mode=None)
app.add_typer(personas_app, name="personas")

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
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]


def main() -> None:
    app()


@app.command(epilog="Examples:  ion serve   |   ION_HTTP_BIND=127.0.0.1:9000 ion serve --grpc")
def serve(
    with_grpc: Annotated[
        bool, typer.Option("--grpc", help="Listen for gRPC clients too, on ION_ROUTER_BIND and ION_LLM_BIND.")
    ] = False,
) -> None:
    """Run the HTTP gateway, the persona router and the LLM gateway in one process."""
    from standalone.serve import serve as run

    http_settings, router_settings, llm_settings = load(HttpSettings), load(RouterSettings), load(LlmSettings)
    telemetry.setup("ion", http_settings.log_level)
    uvloop.run(run(http_settings, router_settings, llm_settings, with_grpc=with_grpc))


@app.command(
    epilog='Examples:  ion chat "I broke the build again"   |   ion chat --persona Elro   |   ion chat --json "hi"'
)
def chat(
    message: Annotated[
        str | None, typer.Argument(help="What to say; without it an interactive session begins.")
    ] = None,
    persona: Annotated[str, typer.Option(help="Have this persona answer.")] = "",
    session: Annotated[str, typer.Option(help="Id of the conversation.")] = "",
    server: Target = None,
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> None:
    """Send a message and see who answers, and why."""
    from standalone.chat import Manner, converse, say_once

    manner = Manner(persona, session, as_json)
    clients = _clients(server, timeout)
    if message is not None:
        _finish(_run(say_once(clients, message, manner)))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        converse(runner, clients, manner)


@app.command(epilog='Examples:  ion route "왜 이게 안 되죠?"   |   ion route --file samples/messages.jsonl --json')
def route(
    message: Annotated[str | None, typer.Argument(help="The message to route.")] = None,
    key: Annotated[str | None, typer.Option(help="A resonance key, such as frustrated-burst-expressive.")] = None,
    file: Annotated[
        Path | None, typer.Option(allow_dash=True, help='JSON lines of {"id"?, "message"}; - for standard input.')
    ] = None,
    previous: Annotated[
        str, typer.Option("--previous-persona", metavar="NAME", help="Who answered last; gets a small bonus.")
    ] = "",
    server: Target = None,
    timeout: Timeout = 30.0,
    as_json: Json = False,
) -> None:
    """Choose a persona for a message, a key or a whole file, without asking a model."""
    from standalone.route import route_file, route_one

    if sum(given is not None for given in (message, key, file)) != 1:
        stop("give exactly one of MESSAGE, --key and --file")
    if previous and file is not None:
        stop('--previous-persona goes with MESSAGE or --key; lines of a file have "previous_persona"')
    clients = _clients(server, timeout)
    if file is not None:
        _finish(_run(route_file(clients, file, as_json=as_json)))
    _finish(_run(route_one(clients, message, key, previous, as_json=as_json)))


@app.command(
    "eval",
    epilog="Examples:  ion eval test.tsv   |   ion eval a.tsv b.tsv.gz --nopunct --compare new.npz --plot eval.png",
)
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
    from standalone.evaluate import evaluate as run

    run(files, weights, compare, plot, nopunct=nopunct, as_json=as_json)


@personas_app.callback(
    invoke_without_command=True,
    epilog="Examples:  ion personas   |   ion personas --json   |   ion personas import friend.png",
)
def personas(context: typer.Context, server: Target = None, timeout: Timeout = 30.0, as_json: Json = False) -> None:
    """List the personas; with a command, import or export one as a Character Card."""
    from standalone.route import list_personas

    if context.invoked_subcommand is None:
        _finish(_run(list_personas(_clients(server, timeout), as_json=as_json)))


@personas_app.command(
    "import", epilog="Examples:  ion personas import friend.png   |   ion personas import lua.json --into mine --force"
)
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


@personas_app.command(
    "export", epilog="Examples:  ion personas export Lua   |   ion personas export Lua --out lua.png --image face.png"
)
def export_persona(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a persona of ION_PERSONAS_DIR.")],
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


@app.command(epilog="Examples:  ion health   |   ion health --wait 10")
def health(
    url: Annotated[str | None, typer.Option(help="Address of the HTTP gateway; by default ION_HTTP_BIND's.")] = None,
    wait: Annotated[float, typer.Option(min=0, max=3600, help="Seconds to wait for a healthy answer.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Ask a running ION how it is; exit status 1 where it is not healthy."""
    from standalone import show
    from standalone.health import ask

    settings = load(HttpSettings)
    answer = ask(url or f"http://{settings.bind}", wait_seconds=wait)
    show.health(answer, as_json=as_json)
    raise typer.Exit(0 if answer.get("status") == "healthy" else 1)


@app.command(epilog="Examples:  ion config   |   ION_HTTP_BIND=nonsense ion config")
def config(as_json: Json = False) -> None:
    """List every setting: variable, value, default, meaning. Bad values are named, and exit status is 2."""
    from standalone import show

    loaded: list[Settings] = []
    problems: list[str] = []
    for settings_type in _ALL_SETTINGS:
        try:
            loaded.append(settings_type())
        except ValidationError as error:
            problems += describe(settings_type, error)
    if problems:
        stop(*dict.fromkeys(problems))
    show.settings(loaded, as_json=as_json)


def _clients(target: str | None, timeout_seconds: float) -> Any:
    """What opens a router for a command; settings of a pipeline in this process matter only without a target."""
    from standalone.client import open_router

    router_settings, llm_settings = load(RouterSettings), load(LlmSettings)
    telemetry.setup("ion", "error")
    return open_router(target, router_settings, llm_settings, timeout_seconds)


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work)
    except IonError as error:
        sys.stderr.write(f"ion: {error.message}\n")
        raise typer.Exit(1) from error
    except BrokenPipeError as error:
        sys.stderr.close()
        raise typer.Exit(1) from error


def _finish(ok: bool) -> NoReturn:
    raise typer.Exit(0 if ok else 1)
