"""Draws docs/chat-page.png anew, from a conversation in which only the model is not real.

.venv/bin/python -m tests.stack.screenshot [FILE]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from tests.fake_vertex import FakeVertex
from tests.stack.browser import ChatPage, chromium, visit
from tests.stack.harness import ROOT, standalone, vertex_env

BEFORE = (
    "Three teams need this release on Friday. How do we get there together?",
    "같은 버그가 계속 나와서 너무 지쳤어요.",
    "Our sign-ups fell by 12 % last week. What should I look at first?",
)
SHOWN = "I keep getting the same bug and I'm so tired of it!"
REPLIES = {
    SHOWN: "That sounds **really** draining. Let us make it smaller together: write down the *last* input that broke "
    "it, then change one thing, and only one."
}
WIDTH, HEIGHT = 1200, 800


async def draw(file: Path) -> None:
    async with FakeVertex() as vertex:
        vertex.answer(_reply)
        vertex.delay(0.3)
        env = vertex_env({"us-central1": vertex.endpoint}, ION_SECOND_OPINION="0")
        size: Any = {"width": WIDTH, "height": HEIGHT}
        async with (
            standalone(env) as chain,
            chromium() as browser,
            visit(browser, chain.url, viewport=size, color_scheme="light") as chat,
        ):
            await _converse(chat)
            await chat.page.screenshot(path=file)


async def _converse(chat: ChatPage) -> None:
    for message in BEFORE:
        await chat.say(message)
        await chat.start_new()
    await chat.say(SHOWN)
    await chat.explain()
    await chat.page.locator("#conversation").evaluate("view => view.scrollTo(0, view.scrollHeight)")
    await chat.page.mouse.move(WIDTH - 1, HEIGHT / 2)


def _reply(request: Any) -> str:
    return REPLIES.get(request.contents[-1].parts[0].text, "Let us look at it together.")


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "chat-page.png"))
