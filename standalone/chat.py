"""`ion chat`: one message and its answer."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from typing import Final

from gateway_http import translation
from ion.router.v1 import router_pb2
from standalone import show, voices
from standalone.client import Router
from standalone.voices import Voices

_FORGOTTEN: Final[dict[int, str]] = {
    router_pb2.HISTORY_STATUS_UNAVAILABLE: "This turn is not remembered: the database does not answer.",
    router_pb2.HISTORY_STATUS_SKIPPED: "This turn is not remembered: the session was deleted meanwhile.",
}
_APOLOGY: Final = "This turn is not remembered: it is an apology."


@dataclass(frozen=True, slots=True)
class Manner:
    """How to talk: to whom, as whom, in which conversation, and how to print it."""

    persona: str = ""
    user_id: str = ""
    session_id: str = ""
    as_json: bool = False


def new_session_id() -> str:
    """One that nobody has used, and short enough to be typed."""
    return secrets.token_hex(6)


async def say(router: Router, message: str, manner: Manner, *, previous: str = "") -> str:
    """Send one message and print the answer, on a terminal as it comes. `previous` answered last, where no session
    knows it. Returns who answered, "" where it was an apology. Raises IonError; of a reply that breaks off, after a
    part of it was printed."""
    at_once = manner.as_json or not show.out.is_terminal
    answer: Callable[..., Awaitable[str]] = _say_at_once if at_once else _say_as_it_comes
    return await answer(router, message, manner, previous)


async def _say_at_once(router: Router, message: str, manner: Manner, previous: str) -> str:
    response = await router.chat(
        router_pb2.ChatRequest(
            message=message,
            persona=manner.persona,
            user_id=manner.user_id,
            session_id=manner.session_id,
            previous_persona=previous,
        )
    )
    if manner.as_json:
        show.as_json_line(translation.chat_response(response))
    else:
        await _print(router, response)
    return "" if response.fallback else response.routing.persona


async def _print(router: Router, response: router_pb2.ChatResponse) -> None:
    shown = await voices.of(router)
    shown.who(response.routing)
    voices.text(response.content)
    shown.why(response.routing, response.analysis)
    _say_if_forgotten(response.history, apology=response.fallback)


async def _say_as_it_comes(router: Router, message: str, manner: Manner, previous: str) -> str:
    shown = await voices.of(router)
    request = router_pb2.ChatStreamRequest(
        message=message,
        persona=manner.persona,
        user_id=manner.user_id,
        session_id=manner.session_id,
        previous_persona=previous,
    )
    choice, done, in_text = router_pb2.Routed(), router_pb2.ChatDone(), False
    try:
        async with aclosing(router.chat_stream(request)) as events:
            async for event in events:
                if event.HasField("routed"):
                    choice = event.routed
                    shown.who(choice.routing)
                elif event.HasField("done"):
                    done = event.done
                else:
                    in_text = True
                    voices.piece(event.text)
    finally:
        if in_text:
            show.out.print()
    return _end(shown, choice, done)


def _end(shown: Voices, choice: router_pb2.Routed, done: router_pb2.ChatDone) -> str:
    routing = done.routing if done.fallback else choice.routing
    if done.fallback:
        shown.who(routing)
    shown.why(routing, choice.analysis)
    _say_if_forgotten(done.history, apology=done.fallback)
    return "" if done.fallback else routing.persona


def _say_if_forgotten(history: int, *, apology: bool) -> None:
    """Nothing where the turn is stored, and where there is no session."""
    if history in _FORGOTTEN:
        skipped = history == router_pb2.HISTORY_STATUS_SKIPPED
        show.err.print(_APOLOGY if skipped and apology else _FORGOTTEN[history], style="yellow")


async def say_once(clients: AbstractAsyncContextManager[Router], message: str, manner: Manner, *, is_new: bool) -> bool:
    """`is_new`: the session's id was made up, and nobody knows it yet."""
    async with clients as router:
        if is_new and not manner.as_json:
            show.err.print(f"session {manner.session_id}", style="dim")
        return bool(await say(router, message, manner))
