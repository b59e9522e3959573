"""A call that requests in this process share, and its text as it comes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from llm_gateway.generation import ModelUnavailable, Reply, Usage

# Each message costs about 100 µs a hop, and nobody reads faster.
MERGE_SECONDS: Final = 0.020
# A stored reply is replayed in pieces of at most so many characters, cut after white space where there is any.
_REPLAYED: Final = re.compile(r".{1,256}(?:(?<=\s)|\Z)|.{256}", re.DOTALL)

NO_USAGE: Final = Usage()


class CacheStatus(StrEnum):
    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    OFF = "off"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Completed:
    """A reply and how it came about. `attempts`: model calls that this process made for it, `hedges` of them to be
    ahead of a late one; `lost_usage`: the tokens of those whose answer was not used."""

    reply: Reply
    cache: CacheStatus
    attempts: int = 0
    hedges: int = 0
    lost_usage: Usage = NO_USAGE
    queued_seconds: float = 0.0
    first_token_seconds: float | None = None
    trimmed_turns: int = 0
    age_seconds: float = 0.0


class Flight:
    """One shared call, for as long as anybody waits for it. `deadline` is that of its most patient caller.

    `wants_text` is true once a stream waits: whoever makes the reply then publishes its text as it comes, and stays
    with the call that it comes from.
    """

    def __init__(self, deadline: Deadline, on_landed: Callable[[], None], *, wants_text: bool = False) -> None:
        self.deadline = deadline
        self.wants_text = wants_text
        self._on_landed = on_landed
        self._waiters = 0
        self._texts: list[str] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[Completed | IonError]

    @property
    def has_published(self) -> bool:
        return bool(self._texts)

    def publish(self, text: str) -> None:
        self._texts.append(text)
        self._news.set()
        self._news = asyncio.Event()

    def start(self, work: Awaitable[Completed]) -> None:
        self._task = asyncio.get_running_loop().create_task(_settled(work))
        self._task.add_done_callback(self._land)

    async def join(self, deadline: Deadline) -> Completed:
        """Wait within `deadline`; whoever leaves last cancels the call."""
        with self._waiting():
            await asyncio.wait((self._task,), timeout=deadline.remaining_seconds())
            return self._result()

    async def stream(self, deadline: Deadline) -> AsyncGenerator[str | Completed, None]:
        """The text so far, then more as it comes, then how it came about. Raises as `join` does, after the text."""
        self.wants_text = True
        with self._waiting():
            sent = 0
            while sent < len(self._texts) or not self._task.done():
                if sent == len(self._texts):
                    await self._wait_for_news(deadline)
                    continue
                text, sent = "".join(self._texts[sent:]), len(self._texts)
                yield text
                await asyncio.wait((self._task,), timeout=MERGE_SECONDS)
            completed = self._result()
            if not sent:
                for text in in_pieces(completed.reply.text):
                    yield text
            yield completed

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        self._waiters += 1
        try:
            yield
        finally:
            self._waiters -= 1
            if not self._waiters and not self._task.done():
                self._on_landed()  # nobody may join a call that is being cancelled
                self._task.cancel()

    async def _wait_for_news(self, deadline: Deadline) -> None:
        try:
            async with asyncio.timeout(deadline.remaining_seconds()):
                await self._news.wait()
        except TimeoutError:
            raise DeadlineExceeded from None

    def _land(self, _: object) -> None:
        self._news.set()
        self._on_landed()

    def _result(self) -> Completed:
        if not self._task.done():
            raise DeadlineExceeded
        if self._task.cancelled():
            raise ModelUnavailable  # by what is below: those who wait were not cancelled, and need an answer
        outcome = self._task.result()
        if isinstance(outcome, IonError):
            raise outcome.with_traceback(None)  # shared by all who wait: each starts a traceback of its own
        return outcome


def in_pieces(text: str) -> Iterator[str]:
    """The text again, as a stream would bring it."""
    return (match[0] for match in _REPLAYED.finditer(text))


async def _settled(work: Awaitable[Completed]) -> Completed | IonError:
    try:
        return await work
    except IonError as error:
        return error
