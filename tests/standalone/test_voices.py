"""How answers look at a terminal."""

from __future__ import annotations

import re

from ion.router.v1 import router_pb2
from tests.standalone.command import ion
from tests.standalone.scripted_router import ROUTED, WHO, Router, done, listening, text
from tests.standalone.terminal import terminal

PERSONAS = ("Elro", "Lua", "Nana", "Riri")


async def shown(*arguments: str, **env: str) -> str:
    async with terminal(*arguments, **env) as tty:
        assert await tty.ended() == 0
        await tty.shows("Tone")
        return tty.raw


async def test_each_persona_has_its_own_colour_and_symbol():
    raw = await shown("chat", "hello", "--persona", "lua")
    colours = {name: re.search(rf"\x1b\[[0-9;]*m *{name} *\x1b\[0m \x1b\[([0-9;]+)m█", raw)[1] for name in PERSONAS}
    assert len(set(colours.values())) == len(PERSONAS)
    assert re.match(rf"🌊 \x1b\[1;{colours['Lua']}mLua\x1b\[0m", raw)


async def test_colours_can_be_turned_off():
    for arguments, env in ((["--no-color"], {}), ([], {"NO_COLOR": "1"})):
        raw = await shown("chat", "hello", *arguments, **env)
        assert not re.search(r"\x1b\[(?:\d+;)*3[0-7]m", raw)


def test_a_pipe_gets_no_sequences():
    assert "\x1b" not in ion("chat", "hello").stdout


async def test_a_reply_cannot_play_with_the_terminal():
    router = Router(ROUTED, text("\x1b[2Jone two\x07\x9b31m\n"), text("three"), done())
    async with listening(router) as target, terminal("chat", "--server", target, "hello") as tty:
        await tty.ended()
        await tty.shows("Because")
    assert tty.text.startswith(f"{WHO}[2Jone two31m\nthree\n")
    assert "\x1b[2J" not in tty.raw


async def test_a_persona_that_nobody_knows_is_shown_all_the_same():
    bob = router_pb2.Routed(routing=router_pb2.Routing(persona="Bob", resonance_key="calm-medium-inquiry"))
    router = Router(router_pb2.ChatStreamResponse(routed=bob), text("Hi."), done())
    async with listening(router) as target, terminal("chat", "--server", target, "hello") as tty:
        await tty.shows("Bob  calm-medium-inquiry  0.00")
        assert await tty.ended() == 0
