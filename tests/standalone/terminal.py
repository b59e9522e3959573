"""A pseudo-terminal with `ion` in it: what people see, and the keys they press."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.stack.harness import ROOT
from tests.standalone.command import environment

CTRL_C, CTRL_D = "\x03", "\x04"
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*3[0-8](?:;\d+)*m")
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SECONDS = 30.0


class Terminal:
    """`raw` is all that has been written so far; `text` is that without colours and other sequences."""

    def __init__(self, process: asyncio.subprocess.Process, keyboard: int) -> None:
        self.process = process
        self.raw = ""
        self._keyboard = keyboard
        self._grew = asyncio.Event()
        self._seen = 0

    @property
    def text(self) -> str:
        return _SEQUENCE.sub("", self.raw).replace("\r\n", "\n")

    @property
    def colours(self) -> list[str]:
        return _COLOUR.findall(self.raw)

    def press(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def say(self, line: str) -> None:
        self.press(f"{line}\n")

    async def shows(self, text: str, *, seconds: float = SECONDS) -> None:
        """Wait until the text stands after what was waited for before."""
        async with asyncio.timeout(seconds):
            while (at := self.text.find(text, self._seen)) < 0:
                await self._grow(text)
        self._seen = at + len(text)

    async def ended(self) -> int:
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()

    async def _grow(self, wanted: str) -> None:
        self._grew.clear()
        waiting = asyncio.create_task(self._grew.wait())
        ending = asyncio.create_task(self.process.wait())
        try:
            done, _ = await asyncio.wait({waiting, ending}, return_when=asyncio.FIRST_COMPLETED)
            assert waiting in done or wanted in self.text, self.text
        finally:
            waiting.cancel()
            ending.cancel()

    def read(self) -> None:
        try:
            data = os.read(self._keyboard, 65536)
        except OSError:  # nobody has the other end any more
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._keyboard)
        self.raw += data.decode(errors="replace")
        self._grew.set()


@asynccontextmanager
async def terminal(*arguments: str, **env: str) -> AsyncIterator[Terminal]:
    """`ion` with these arguments, at a terminal of 100 columns with colours."""
    keyboard, inside = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "standalone", *arguments),
        cwd=ROOT,
        env=environment() | {"COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"} | env,
        stdin=inside,
        stdout=inside,
        stderr=inside,
        preexec_fn=lambda: os.login_tty(inside),  # so that Ctrl-C reaches it
    )
    os.close(inside)
    shown = Terminal(process, keyboard)
    asyncio.get_running_loop().add_reader(keyboard, shown.read)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(keyboard)
        os.close(keyboard)
