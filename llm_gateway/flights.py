"""A call that requests in this process share, and its text as it comes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from llm_gateway.generation import NO_USAGE, Reply, Usage
from llm_gateway.shared_call import SharedCall

# Each message costs about 100 µs a hop, and nobody reads faster.
MERGE_SECONDS: Final = 0.020
# A stored reply is replayed in pieces of at most so many characters, cut after white space where there is any.
_REPLAYED: Final = re.compile(r".{1,256}(?:(?<=\s)|\Z)|.{256}", re.DOTALL)


class CacheStatus(StrEnum):
    HIT = "hit"
    MISS = "miss"
    COALESCED = "coalesced"
    OFF = "off"
    STALE = "stale"


class CacheTier(StrEnum):
    """Where a reply was found."""

    NEAR = "near"  # in this process
    FLIGHT = "flight"  # a call under way in it
    SHARED = "shared"  # with other replicas
    NONE = "none"  # nowhere: it was made


@dataclass(frozen=True, slots=True)
class Completed:
    """A reply and how it came about. `attempts`: model calls that this process made for it, `hedges` of them to be
    ahead of a late one; `lost_usage`: the tokens of those whose answer was not used. `traceparent` is of the call that
    made the reply, "" where that was not sampled."""

    reply: Reply
    cache: CacheStatus
    tier: CacheTier = CacheTier.NONE
    attempts: int = 0
    hedges: int = 0
    lost_usage: Usage = NO_USAGE
    queued_seconds: float = 0.0
    first_token_seconds: float | None = None
    trimmed_turns: int = 0
    age_seconds: float = 0.0
    traceparent: str = ""


class Flight:
    """One shared call, for as long as anybody waits for it. `deadline` is that of its most patient caller.

    `wants_text` is true once a stream waits: whoever makes the reply then publishes its text as it comes, and stays
    with the call that it comes from.
    """

    def __init__(self, deadline: Deadline, on_landed: Callable[[], None]) -> None:
        """`on_landed`: it can be joined no more. May be called twice."""
        self.deadline = deadline
        self.wants_text = False
        self._on_landed = on_landed
        self._texts: list[str] = []
        self._news = asyncio.Event()
        self._call: SharedCall[Completed]

    @property
    def has_published(self) -> bool:
        return bool(self._texts)

    def publish(self, text: str) -> None:
        self._texts.append(text)
        self._news.set()
        self._news = asyncio.Event()

    def start(self, make: Callable[[], Awaitable[Completed]]) -> None:
        self._call = SharedCall(make, self._land)

    async def cancel(self) -> None:
        await self._call.cancel()

    async def join(self, deadline: Deadline) -> Completed:
        """Wait within `deadline`; whoever leaves last cancels the call. Raises as SharedCall.join does."""
        return await self._call.join(deadline)

    async def stream(self, deadline: Deadline) -> AsyncGenerator[str | Completed, None]:
        """The text so far, then more as it comes, then how it came about. Raises as `join` does, after the text."""
        self.wants_text = True
        with self._call.waiting():
            sent = 0
            while sent < len(self._texts) or not self._call.is_over:
                if not deadline.remaining_seconds():
                    raise DeadlineExceeded
                if sent == len(self._texts):
                    await self._wait_for_news(deadline)
                    continue
                text, sent = "".join(self._texts[sent:]), len(self._texts)
                yield text
                await self._call.ends_within(MERGE_SECONDS)
            completed = self._call.result()
            if not sent:
                for text in in_pieces(completed.reply.text):
                    yield text
            yield completed

    async def _wait_for_news(self, deadline: Deadline) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline.remaining_seconds()):
                await self._news.wait()

    def _land(self) -> None:
        self._news.set()
        self._on_landed()


def in_pieces(text: str) -> Iterator[str]:
    """The text again, as a stream would bring it."""
    return (match[0] for match in _REPLAYED.finditer(text))
