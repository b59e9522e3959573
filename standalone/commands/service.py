"""`ion serve`, `ion health` and `ion config`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
import uvloop
from pydantic import ValidationError

from chassis.observability import observing
from chassis.settings import Settings, describe, load, stop
from gateway_http.settings import HttpSettings
from llm_gateway.settings import LlmSettings
from router_service.settings import RouterSettings
from standalone.commands.options import Json
from standalone.commands.running import finish
from standalone.settings import ClientSettings

_ALL_SETTINGS: tuple[Any, ...] = (HttpSettings, RouterSettings, LlmSettings, ClientSettings)


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Examples:  ion serve   |   ION_HTTP_BIND=127.0.0.1:9000 ion serve --grpc")(serve)
    app.command(epilog="Examples:  ion health   |   ion health --wait 10")(health)
    app.command(epilog="Examples:  ion config   |   ION_HTTP_BIND=nonsense ion config")(config)


def serve(
    with_grpc: Annotated[
        bool, typer.Option("--grpc", help="Listen for gRPC clients too, on ION_ROUTER_BIND and ION_LLM_BIND.")
    ] = False,
) -> None:
    """Run the HTTP gateway, the persona router and the LLM gateway in one process."""
    from standalone.serve import serve as run

    http_settings, router_settings, llm_settings = load(HttpSettings), load(RouterSettings), load(LlmSettings)
    with observing("ion", http_settings, serves_metrics=True):
        uvloop.run(run(http_settings, router_settings, llm_settings, with_grpc=with_grpc))


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
    finish(answer.get("status") == "healthy")


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
