"""How a command runs and ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import typer
import uvloop

from chassis import caller
from chassis.errors import IonError
from chassis.observability import observing
from chassis.settings import Settings, load, stop
from llm_gateway.settings import LlmSettings
from router_service.settings import RouterSettings
from standalone.failure import CommandFailed
from standalone.settings import ClientSettings

if TYPE_CHECKING:
    from standalone.client import Router

T = TypeVar("T")
FAILED: Final = 1
EXIT_STATUSES: Final = (
    "Exit status: 0 done; 1 it failed, was not found or is not healthy; 2 wrong usage or settings; 130 interrupted."
)


def clients(
    target: str | None, timeout_seconds: float, *, keeps_sessions: bool = False
) -> AbstractAsyncContextManager[Router]:
    """What opens a router for a command; settings of a pipeline in this process matter only without a target, and the
    key is shown only to one. `keeps_sessions`: the command is about sessions."""
    from standalone.client import open_router

    router_settings, llm_settings = load(RouterSettings), load(LlmSettings)
    authorization = load(ClientSettings).authorization
    if target and authorization:
        caller.show((caller.AUTHORIZATION_KEY, authorization))
    return open_router(target, router_settings, llm_settings, timeout_seconds, keeps_sessions=keeps_sessions)


def run(work: Coroutine[Any, Any, T], *, as_json: bool) -> T:
    """The outcome of it. What goes wrong beside it is not the business of who asked."""
    with (
        observing("ion", load(Settings, log_level="error")),
        failures_told(as_json=as_json),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(work)


@contextmanager
def failures_told(*, as_json: bool) -> Iterator[None]:
    """A failure inside is told on standard error and ends the command: with exit status 1, or 2 where it is for what it
    was given."""
    try:
        yield
    except (IonError, CommandFailed) as error:
        from standalone import show

        show.failure(error, as_json=as_json)
        raise typer.Exit(FAILED) from error
    except UnicodeEncodeError:
        stop("arguments must be text in UTF-8")
    except BrokenPipeError as error:
        sys.stderr.close()
        raise typer.Exit(FAILED) from error


def refuse_options(context: typer.Context) -> None:
    """End the command where options stand before the name of the command that they are meant for, which would not see
    them: it might work on another database, or for another user."""
    given = [name for name in context.params if _stands_there(context, name)]
    if given:
        option = next(each for each in context.command.params if each.name == given[0]).opts[0]
        stop(f"{option} must come after {context.invoked_subcommand}")


def _stands_there(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def finish(ok: bool) -> NoReturn:
    raise typer.Exit(0 if ok else FAILED)
