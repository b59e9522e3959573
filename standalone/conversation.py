"""`ion chat` without a message: a conversation at the terminal."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from standalone import show
from standalone.chat import Manner, say
from standalone.client import Router
from standalone.sessions import in_a_line
from standalone.voices import harmless

T = TypeVar("T")
PROMPT = "> "
QUIT = "/quit"


class _CannotStart(Exception):
    """What SystemExit is elsewhere, which would end the event loop's thread and leave this one waiting for it."""

    def __init__(self, status: int | str | None) -> None:
        self.status = status


def converse(clients: AbstractAsyncContextManager[Router], manner: Manner, *, is_new: bool) -> None:
    """Read, answer, repeat, until the end of input or /quit. Ctrl-C stops the reply that is coming, or gives up the
    line that is being typed. The event loop has a thread of its own, so that what the services do beside an answer
    goes on while a line is awaited."""
    _edit_lines()
    try:
        with (
            start_blocking_portal(backend_options={"use_uvloop": True}) as portal,
            portal.wrap_async_context_manager(_opened(clients)) as router,
        ):
            _begin(portal, router, manner, is_new=is_new)
            _Talk(portal, router, manner).go_on()
    except _CannotStart as error:
        sys.exit(error.status)


@asynccontextmanager
async def _opened(clients: AbstractAsyncContextManager[Router]) -> AsyncIterator[Router]:
    try:
        async with clients as router:
            yield router
    except SystemExit as error:
        raise _CannotStart(error.code) from error


def _begin(portal: BlockingPortal, router: Router, manner: Manner, *, is_new: bool) -> None:
    if manner.session_id:
        show.err.print(_run(portal, _which(router, manner, is_new=is_new)), style="dim", markup=False)
    show.err.print("Say something; /quit or Ctrl-D ends.", style="dim")


async def _which(router: Router, manner: Manner, *, is_new: bool) -> str:
    """Which session it is, so that it can be gone on with, and what is known of it."""
    name = f"session {harmless(manner.session_id)}"
    if is_new:
        return name
    try:
        return in_a_line(await router.session(manner.session_id, manner.user_id))
    except IonError as error:
        return f"{name}: new" if error.reason == Reason.REASON_SESSION_NOT_FOUND else f"{name}: {error.message}"


class _Talk:
    """Keeps who answered last, for a conversation that no session keeps."""

    def __init__(self, portal: BlockingPortal, router: Router, manner: Manner) -> None:
        self._portal = portal
        self._router = router
        self._manner = manner
        self._previous = ""

    def go_on(self) -> None:
        while (line := _read_line()) != QUIT:
            if line:
                self._answer(line)

    def _answer(self, line: str) -> None:
        """A message that cannot be answered does not end the conversation."""
        previous = "" if self._manner.session_id else self._previous
        try:
            answered = _run(self._portal, say(self._router, line, self._manner, previous=previous))
            self._previous = answered or self._previous
        except IonError as error:
            show.failure(error, as_json=self._manner.as_json)
        except KeyboardInterrupt:
            show.err.print("(stopped)", style="dim")


def _run(portal: BlockingPortal, work: Coroutine[Any, Any, T]) -> T:
    """The outcome. An interrupt cancels the work, and comes out of here when it has ended."""
    ended = threading.Event()

    async def until_it_ends() -> T:
        try:
            return await work
        finally:
            ended.set()

    future = portal.start_task_soon(until_it_ends)
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        ended.wait()
        raise


def _read_line() -> str:
    """A line without the white space around it, "" for one that was given up; QUIT at the end of input."""
    try:
        if not sys.stdin.isatty():
            return input().strip()
        if sys.stdout.isatty():
            return input(PROMPT).strip()
        sys.stderr.write(PROMPT)  # standard output has answers alone
        sys.stderr.flush()
        return input().strip()
    except (EOFError, KeyboardInterrupt) as ending:
        if sys.stdin.isatty():
            show.err.print()  # what is shown next begins a line
        return "" if isinstance(ending, KeyboardInterrupt) else QUIT


def _edit_lines() -> None:
    """Arrow keys and the lines before, where Python has them; and no end over bytes that are not UTF-8."""
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    if sys.stdin.isatty() and sys.stdout.isatty():
        with suppress(ImportError):
            import readline  # noqa: F401 - input() uses it
