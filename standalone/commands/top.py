"""`ion top`."""

from __future__ import annotations

from typing import Annotated

import typer

from chassis.settings import load, stop
from gateway_http.settings import HttpSettings
from standalone.commands.load import reachable
from standalone.commands.options import Json, NoColour
from standalone.commands.running import finish, run
from standalone.settings import ClientSettings

_EXAMPLES = (
    "Examples:  ion top   |   ion top --interval 5   |   ion top --once --json   |   "
    "ion top http://127.0.0.1:8080 http://127.0.0.1:9101 http://127.0.0.1:9102"
)


def add_to(app: typer.Typer) -> None:
    app.command(epilog=_EXAMPLES)(top)


def top(
    urls: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[URL]...", help="Where processes show their metrics; by default ION_HTTP_BIND's gateway alone."
        ),
    ] = None,
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print what was seen between, and end.")] = False,
    no_color: NoColour = False,
    as_json: Json = False,
) -> None:
    """Watch a running ION: rate, errors, percentiles, cache, personas, regions, cost, by its metrics; Ctrl-C ends.

    All figures are of the time between the last two looks. Of services in processes of their own, name the address of
    each: ION_METRICS_BIND's. One that asks for a key is shown ION_API_KEY. With --once, exit status 1 says that one was
    not seen twice.
    """
    from standalone.top import live

    places = [_metrics_url(url) for url in urls or [f"http://{reachable(load(HttpSettings).bind)}"]]
    authorization = load(ClientSettings).authorization
    if once:
        finish(run(live.once(places, interval, authorization, as_json=as_json), as_json=as_json))
    run(live.follow(places, interval, authorization, as_json=as_json), as_json=as_json)


def _metrics_url(url: str) -> str:
    """The whole address of one that is given without its path. Ends the command where it is none."""
    from standalone.load.plan import host_of_url

    try:
        host_of_url(url)
    except ValueError as error:
        stop(f"{url}: {error}")
    return url if url.rstrip("/").count("/") > 2 else f"{url.rstrip('/')}/metrics"
