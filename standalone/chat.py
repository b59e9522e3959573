"""`ion chat`: one message, or a session at the terminal."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from dataclasses import dataclass

from chassis.errors import IonError
from ion.router.v1 import router_pb2
from standalone import show
from standalone.client import Router


@dataclass(frozen=True, slots=True)
class Manner:
    """How to talk: to whom, in which conversation, and how to print it."""

    persona: str
    session_id: str
    as_json: bool


async def say(router: Router, message: str, manner: Manner, *, previous: str = "") -> str:
    """Send one message and print the answer; `previous` answered last. Returns who answered, "" where it was an
    apology."""
    request = router_pb2.ChatRequest(
        message=message, persona=manner.persona, session_id=manner.session_id, previous_persona=previous
    )
    response = await router.chat(request)
    symbols = {} if manner.as_json else {item.name: item.symbol for item in (await router.list_personas()).personas}
    show.chat(response, symbols, as_json=manner.as_json)
    return "" if response.fallback else response.routing.persona


async def say_once(clients: AbstractAsyncContextManager[Router], message: str, manner: Manner) -> bool:
    async with clients as router:
        return bool(await say(router, message, manner))


def converse(runner: asyncio.Runner, clients: AbstractAsyncContextManager[Router], manner: Manner) -> None:
    """Read, answer, repeat, until end of file, Ctrl-C or /quit."""
    stack = AsyncExitStack()
    router = runner.run(stack.enter_async_context(clients))
    previous = ""
    show.err.print("Say something; /quit or Ctrl-D ends.", style="dim")
    try:
        with suppress(EOFError, KeyboardInterrupt):
            while (line := input("> ").strip()) != "/quit":
                if line:
                    previous = _answer(runner, router, line, manner, previous) or previous
    finally:
        runner.run(stack.aclose())


def _answer(runner: asyncio.Runner, router: Router, line: str, manner: Manner, previous: str) -> str:
    """Who answered, "" where nobody did. A message that cannot be answered does not end the session."""
    try:
        return runner.run(say(router, line, manner, previous=previous))
    except IonError as error:
        show.err.print(f"ion: {error.message}", style="red", markup=False)
        return ""
