"""`ion load`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from chassis.settings import Bind, load, stop
from gateway_http.settings import HttpSettings
from router_service.settings import RouterSettings
from standalone.commands.options import Json, NoColour, User
from standalone.commands.running import finish, run
from standalone.settings import ClientSettings

if TYPE_CHECKING:
    from standalone.load.callers import OpenCalled
    from standalone.load.plan import Manner

_EXAMPLES = (
    "Examples:  ion load   |   ion load --callers 32 --seconds 5 --stream   |   ion load --grpc 127.0.0.1:50051"
    "   |   ion load --rate 20 --file samples/messages.jsonl --json"
)


def add_to(app: typer.Typer) -> None:
    app.command("load", epilog=_EXAMPLES)(run_load)


def run_load(
    where: Annotated[
        str | None,
        typer.Argument(metavar="[URL|TARGET]", help="A running ION; by default ION_HTTP_BIND's or ION_ROUTER_BIND's."),
    ] = None,
    callers: Annotated[int, typer.Option(min=1, max=1000, help="Callers at a time.")] = 8,
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="How long calls begin.")] = 10.0,
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, max=10_000, help="Requests a second of all callers; by default as fast as they go."),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Have answers streamed, and time their first text.")] = False,
    session: Annotated[
        bool, typer.Option("--session", help="Each caller keeps a session, which is deleted in the end.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option(allow_dash=True, help='JSON lines of {"message"} to say, over and over.')
    ] = None,
    bypass_cache: Annotated[
        bool, typer.Option("--bypass-cache", help="Have each answer made, whatever the cache knows.")
    ] = False,
    grpc: Annotated[bool, typer.Option("--grpc", help="Call the persona router over gRPC, not the gateway.")] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Call another machine, too: one that you may put load on.")
    ] = False,
    user: User = "",
    timeout: Annotated[float, typer.Option(min=0.001, max=600, help="Seconds that a call may take.")] = 30.0,
    no_color: NoColour = False,
    as_json: Json = False,
) -> None:
    """Put a running ION under load for a short while and see how it does; exit status 1 where a call failed.

    Times are exact percentiles of all answered calls; with --rate from when a call was due. An apology counts as an
    error. It shares this machine with the server: a quick look, no benchmark.
    """
    from standalone.load.live import load as work
    from standalone.load.plan import MESSAGES, Manner, Plan
    from standalone.route import read_messages

    manner = Manner(timeout, stream, session, bypass_cache, user, load(ClientSettings).authorization)
    where = where or (str(load(RouterSettings).router_bind) if grpc else f"http://{reachable(load(HttpSettings).bind)}")
    _check(where, grpc=grpc, allow_remote=allow_remote)
    plan = Plan(callers, seconds, rate, read_messages(file) if file else MESSAGES)
    opened = _open_grpc(where, manner) if grpc else _open_http(where, manner, callers, allow_remote=allow_remote)
    finish(run(work(opened, plan, where, session=session, as_json=as_json), as_json=as_json))


def reachable(bind: Bind) -> Bind:
    """Where to call who listens on all addresses."""
    return Bind({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind.host, bind.host), bind.port)


def _check(where: str, *, grpc: bool, allow_remote: bool) -> None:
    """End the command where that is no place to call, or another machine that nobody said may be called."""
    from standalone.load.plan import host_of_target, host_of_url, is_loopback

    try:
        host = host_of_target(where) if grpc else host_of_url(where)
    except ValueError as error:
        stop(f"{where}: {error}")
    if not allow_remote and not is_loopback(host):
        stop(f"{where}: is another machine; --allow-remote says that you may put load on it")


def _open_http(url: str, manner: Manner, callers: int, *, allow_remote: bool) -> OpenCalled:
    from standalone.load.callers import open_http

    return lambda: open_http(url, manner, callers=callers, trust_env=allow_remote)


def _open_grpc(target: str, manner: Manner) -> OpenCalled:
    from chassis.transport import Transport
    from standalone.load.callers import open_grpc

    settings = load(RouterSettings)
    return lambda: open_grpc(target, manner, Transport.of(settings))
