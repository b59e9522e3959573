"""`ion chat` without a message, at a real terminal."""

from __future__ import annotations

import asyncio
import re
import shutil

from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2
from tests.stack.harness import ROOT, until
from tests.standalone.scripted_router import ROUTED, Router, done, listening, text
from tests.standalone.terminal import CTRL_C, CTRL_D, Terminal, terminal

STORED = done(history=router_pb2.HISTORY_STATUS_STORED)


async def test_a_conversation_is_a_session_and_says_which():
    router = Router(ROUTED, text("Yes."), STORED)
    async with listening(router) as target, terminal("chat", "--server", target) as tty:
        await tty.shows("> ")
        (session,) = re.findall(r"^session ([0-9a-f]{12})$", tty.text, re.M)
        for _ in range(2):
            tty.say("hello")
            await tty.shows("Because of it.")
        tty.say("/quit")
        assert await tty.ended() == 0
    assert [request.session_id for request in router.requests] == [session, session]
    assert not any(request.previous_persona for request in router.requests)  # the session knows


async def test_without_a_session_the_command_says_who_answered_last():
    router = Router(ROUTED, text("Yes."), done())
    async with listening(router) as target, terminal("chat", "--server", target, "--no-session") as tty:
        for _ in range(2):
            await tty.shows("> ")
            tty.say("hello")
            await tty.shows("Because of it.")
        await tty.shows("> ")
        tty.press(CTRL_D)
        assert await tty.ended() == 0
        await tty.shows("\n")  # where the shell's own prompt goes
    assert "session" not in tty.text
    assert [request.session_id for request in router.requests] == ["", ""]
    assert [request.previous_persona for request in router.requests] == ["", "Lua"]


async def test_an_interrupt_stops_the_reply_and_not_the_conversation():
    router = Router(ROUTED, text("half a sen"), asyncio.Event())
    command = ("chat", "--timeout", "600", "--server")
    async with listening(router) as target, terminal(*command, target) as tty:
        await tty.shows("> ")
        tty.say("hello")
        await tty.shows("half a sen")
        tty.press(CTRL_C)
        await tty.shows("^C\n(stopped)")
        await router.cancelled.wait()
        router.script = (ROUTED, text("whole"), STORED)
        await tty.shows("> ")
        tty.say("again")
        await tty.shows("whole")
        await tty.shows("> ")
        tty.press(CTRL_D)
        assert await tty.ended() == 0


async def _give_up(tty: Terminal) -> None:
    """Python may overlook an interrupt that comes just as it begins to wait for a key: then once more."""
    tty.press(CTRL_C)
    try:
        await tty.shows("> ", seconds=5)
    except TimeoutError:
        tty.press(CTRL_C)
        await tty.shows("> ")


async def test_an_interrupt_at_the_prompt_gives_up_the_line():
    router = Router(ROUTED, text("Yes."), STORED)
    async with listening(router) as target, terminal("chat", "--server", target) as tty:
        await tty.shows("> ")
        tty.press("never said")
        await tty.shows("never said")
        await _give_up(tty)
        tty.say("said")
        await tty.shows("Yes.")
        await tty.shows("> ")
        tty.press(CTRL_D)
        assert await tty.ended() == 0
    assert [request.message for request in router.requests] == ["said"]


async def test_a_turn_that_is_not_remembered_is_told():
    for history, words in (
        (router_pb2.HISTORY_STATUS_UNAVAILABLE, "not remembered: the database does not answer"),
        (router_pb2.HISTORY_STATUS_SKIPPED, "not remembered: the session was deleted meanwhile"),
    ):
        router = Router(ROUTED, text("Yes."), done(history=history))
        async with listening(router) as target, terminal("chat", "--server", target, "--session", "s", "hello") as tty:
            await tty.shows(words)
            assert await tty.ended() == 0


async def test_what_fails_does_not_end_a_conversation():
    router = Router(ROUTED, text("half a sen"), Reason.REASON_MODEL_INTERRUPTED)
    async with listening(router) as target, terminal("chat", "--server", target) as tty:
        for _ in range(2):
            await tty.shows("> ")
            tty.say("hello")
            await tty.shows("ion: The reply broke off.")
        await tty.shows("> ")
        tty.press(CTRL_D)
        assert await tty.ended() == 0


async def test_services_in_this_process_go_on_while_a_line_is_awaited(tmp_path):
    """As a file that cannot be used is noticed and said while nobody types."""
    personas = tmp_path / "personas"
    shutil.copytree(ROOT / "personas", personas)
    async with terminal("chat", "--no-session", ION_PERSONAS_DIR=str(personas)) as tty:
        await tty.shows("> ")

        async def told() -> bool:
            (personas / "lua.toml").write_text("name = 7")  # again, until it is watched
            return "lua.toml" in tty.text

        await until(told)
