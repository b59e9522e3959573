"""A pseudo-terminal with `ion` in it: what people see, and the keys they press."""

from __future__ import annotations

import asyncio
import codecs
import os
import pty
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing.process import BaseProcess

from tests.standalone.command import begin

CTRL_C, CTRL_D = "\x03", "\x04"
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SECONDS = 30.0


class Terminal:
    """`raw` is all that has been written so far; `text` is that without colours and other sequences."""

    def __init__(self, process: BaseProcess, keyboard: int) -> None:
        self.raw = ""
        self._process = process
        self._keyboard = keyboard
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._grew = asyncio.Event()
        self._gone = asyncio.Event()
        self._seen = 0

    @property
    def text(self) -> str:
        return _SEQUENCE.sub("", self.raw).replace("\r\n", "\n")

    def press(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def say(self, line: str) -> None:
        self.press(f"{line}\n")

    async def shows(self, text: str, *, seconds: float = SECONDS) -> None:
        """Wait until the text stands after what was waited for before."""
        async with asyncio.timeout(seconds):
            while (at := self.text.find(text, self._seen)) < 0:
                assert not self._gone.is_set(), self.text
                self._grew.clear()
                await self._grew.wait()
        self._seen = at + len(text)

    async def ended(self) -> int:
        """Its exit status, after all that it had to say."""
        async with asyncio.timeout(SECONDS):
            await self._gone.wait()
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    @contextmanager
    def watched(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._keyboard, self._read)
        loop.add_reader(self._process.sentinel, self._end)
        try:
            yield
        finally:
            loop.remove_reader(self._keyboard)
            loop.remove_reader(self._process.sentinel)

    def _read(self) -> None:
        self.raw += self._decoder.decode(os.read(self._keyboard, 65536))
        self._grew.set()

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        with suppress(BlockingIOError):  # all is read
            while True:
                self._read()
        self._gone.set()
        self._grew.set()


@asynccontextmanager
async def terminal(*arguments: str, **env: str) -> AsyncIterator[Terminal]:
    """`ion` with these arguments, at a terminal of 100 columns with colours."""
    keyboard, inside = pty.openpty()
    os.set_blocking(keyboard, False)
    size = {"COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"}
    process = begin(arguments, size | env, [os.ttyname(inside)] * 3)
    try:
        shown = Terminal(process, keyboard)
        with shown.watched():
            yield shown
    finally:
        process.kill()
        process.join()
        os.close(keyboard)
        os.close(inside)
