"""`ion chat`: one message, or a session at the terminal."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, suppress
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
    """Send one message and print the answer, on a terminal as it comes; `previous` answered last. Returns who answered,
    "" where it was an apology. Raises IonError, for a reply that breaks off after a part of it was printed."""
    fields = {
        "message": message,
        "persona": manner.persona,
        "session_id": manner.session_id,
        "previous_persona": previous,
    }
    if show.out.is_terminal and not manner.as_json:
        return await _say_as_it_comes(router, router_pb2.ChatStreamRequest(**fields))
    return await _say_at_once(router, router_pb2.ChatRequest(**fields), manner)


async def _say_at_once(router: Router, request: router_pb2.ChatRequest, manner: Manner) -> str:
    response = await router.chat(request)
    symbols = {} if manner.as_json else await _symbols(router)
    show.chat(response, symbols, as_json=manner.as_json)
    return "" if response.fallback else response.routing.persona


async def _say_as_it_comes(router: Router, request: router_pb2.ChatStreamRequest) -> str:
    symbols = await _symbols(router)
    choice, done, in_text = router_pb2.Routed(), router_pb2.ChatDone(), False
    try:
        async with aclosing(router.chat_stream(request)) as events:
            async for event in events:
                if event.HasField("routed"):
                    choice = event.routed
                    show.who(choice.routing, symbols)
                elif event.HasField("done"):
                    done = event.done
                else:
                    in_text = True
                    show.piece(event.text)
    finally:
        if in_text:
            show.out.print()
    routing = done.routing if done.fallback else choice.routing
    if done.fallback:
        show.who(routing, symbols)
    show.why(routing, choice.analysis)
    return "" if done.fallback else routing.persona


async def _symbols(router: Router) -> dict[str, str]:
    return {persona.name: persona.symbol for persona in (await router.list_personas()).personas}


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
