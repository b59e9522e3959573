"""Replies as they come, sync and async."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Self

from ion_client.results import Analysis, Choice, Done, Event, Reply, Routed, Text


class Progress:
    """What a stream knows so far. `held` are events that came and were not handed out yet."""

    def __init__(self) -> None:
        self.held: deque[Event] = deque()
        self._pieces: list[str] = []
        self._routed: Routed | None = None
        self._reply: Reply | None = None

    def take(self, event: Event) -> None:
        self.held.append(event)
        if isinstance(event, Routed):
            self._routed = event
        elif isinstance(event, Text):
            self._pieces.append(event.text)
        elif isinstance(event, Done):
            self._reply = event.reply

    @property
    def choice_known(self) -> bool:
        return self._routed is not None

    @property
    def routed(self) -> Routed:
        if self._routed is None:
            raise RuntimeError("the choice is not known yet: enter the stream by `with`, or read it")
        return self._routed

    @property
    def choice(self) -> Choice:
        return self.routed.choice

    @property
    def analysis(self) -> Analysis | None:
        return self.routed.analysis

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def reply(self) -> Reply:
        if self._reply is None:
            raise RuntimeError("the reply is not complete yet: read the stream to its end")
        return self._reply


class ReplyStream:
    """A reply as it comes, for one thread:

        with ion.stream("Why does this keep failing?") as stream:
            print(stream.choice.persona)
            for text in stream:
                print(text, end="")
        print(stream.reply.generation)

    The block begins when the choice is there; leaving it before the end cancels the call. What fails before the first
    text is retried like any call, and then the choice is made anew; what fails later raises Interrupted.
    """

    def __init__(self, begin: Callable[[], Generator[Event, None, None]]) -> None:
        self._begin = begin
        self._source: Generator[Event, None, None] | None = None
        self._progress = Progress()

    def __enter__(self) -> Self:
        while not self._progress.choice_known and self._pull():
            pass
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[str]:
        """The texts that are still to come."""
        for event in self.events():
            if isinstance(event, Text):
                yield event.text

    def events(self) -> Iterator[Event]:
        """All that is still to come: Routed, Texts, Done."""
        while self._progress.held or self._pull():
            yield self._progress.held.popleft()

    def read(self) -> Reply:
        """Read what is still to come; the whole reply."""
        for _ in self.events():
            pass
        return self.reply

    @property
    def choice(self) -> Choice:
        """Who answers; known inside the block, and from the first event on."""
        return self._progress.choice

    @property
    def analysis(self) -> Analysis | None:
        """What was read from the message; known as `choice` is."""
        return self._progress.analysis

    @property
    def text(self) -> str:
        """What has come so far."""
        return self._progress.text

    @property
    def reply(self) -> Reply:
        """The whole reply, once all has been read."""
        return self._progress.reply

    def close(self) -> None:
        """Cancel the call where it has not ended. Nothing more comes."""
        self._progress.held.clear()
        if self._source is not None:
            self._source.close()

    def _pull(self) -> bool:
        """Take the next event; False after the last one."""
        if self._source is None:
            self._source = self._begin()
        event = next(self._source, None)
        if event is not None:
            self._progress.take(event)
        return event is not None


class AsyncReplyStream:
    """A reply as it comes, for one task:

        async with ion.stream("Why does this keep failing?") as stream:
            print(stream.choice.persona)
            async for text in stream:
                print(text, end="")
        print(stream.reply.generation)

    The block begins when the choice is there; leaving it before the end cancels the call. What fails before the first
    text is retried like any call, and then the choice is made anew; what fails later raises Interrupted.
    """

    def __init__(self, begin: Callable[[], AsyncGenerator[Event, None]]) -> None:
        self._begin = begin
        self._source: AsyncGenerator[Event, None] | None = None
        self._progress = Progress()

    async def __aenter__(self) -> Self:
        while not self._progress.choice_known and await self._pull():
            pass
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[str]:
        """The texts that are still to come."""
        async for event in self.events():
            if isinstance(event, Text):
                yield event.text

    async def events(self) -> AsyncIterator[Event]:
        """All that is still to come: Routed, Texts, Done."""
        while self._progress.held or await self._pull():
            yield self._progress.held.popleft()

    async def read(self) -> Reply:
        """Read what is still to come; the whole reply."""
        async for _ in self.events():
            pass
        return self.reply

    @property
    def choice(self) -> Choice:
        """Who answers; known inside the block, and from the first event on."""
        return self._progress.choice

    @property
    def analysis(self) -> Analysis | None:
        """What was read from the message; known as `choice` is."""
        return self._progress.analysis

    @property
    def text(self) -> str:
        """What has come so far."""
        return self._progress.text

    @property
    def reply(self) -> Reply:
        """The whole reply, once all has been read."""
        return self._progress.reply

    async def close(self) -> None:
        """Cancel the call where it has not ended. Nothing more comes."""
        self._progress.held.clear()
        if self._source is not None:
            await self._source.aclose()

    async def _pull(self) -> bool:
        """Take the next event; False after the last one."""
        if self._source is None:
            self._source = self._begin()
        event = await anext(self._source, None)
        if event is not None:
            self._progress.take(event)
        return event is not None
