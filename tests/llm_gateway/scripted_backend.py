"""A backend in this process that does as it is told, for tests of what stands in front of it."""

from __future__ import annotations

import asyncio
import gc
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from llm_gateway.generation import FinishReason, GenerationRequest, Prompt, Reply, Role, Turn, Usage


def reply(text: str = "Hello!", finish_reason: FinishReason = FinishReason.STOP, location: str = "here") -> Reply:
    return Reply(text, "model-a-001", location, finish_reason, Usage(11, 7, 3, 2))


def asking(text: str = "Hi", **fields: Any) -> GenerationRequest:
    return GenerationRequest("model-a", Prompt("You are Lua.", (Turn(Role.USER, text),)), **fields)


def soon() -> Deadline:
    return Deadline.after(10)


async def until(holds: Callable[[], bool], *, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    """No task outlives its callers, and no exception is left unread."""
    complaints: list[dict[str, object]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    before = asyncio.all_tasks()
    gc.freeze()  # so that only what the test made is looked through
    yield
    this = asyncio.current_task()
    await until(lambda: asyncio.all_tasks() <= before | {this})
    gc.collect()
    gc.unfreeze()
    assert complaints == []


@dataclass(frozen=True)
class Call:
    request: Any
    location: str
    timeout_seconds: float
    streamed: bool = False


class Gates:
    """Open unless held; a location's own gate comes on top of the one for all."""

    def __init__(self) -> None:
        self._gates: defaultdict[str | None, asyncio.Event] = defaultdict(self._new_gate)

    @staticmethod
    def _new_gate() -> asyncio.Event:
        gate = asyncio.Event()
        gate.set()
        return gate

    def hold(self, location: str | None = None) -> None:
        self._gates[location].clear()

    def release(self, location: str | None = None) -> None:
        self._gates[location].set()

    async def passed(self, location: str) -> None:
        await self._gates[None].wait()
        await self._gates[location].wait()


class Dictated:
    """An outcome that the test dictates piece by piece: texts, then a reply or an exception."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[str | Reply | BaseException] = asyncio.Queue()

    def say(self, *items: str | Reply | BaseException) -> None:
        for item in items:
            self._items.put_nowait(item)

    async def next(self) -> str | Reply:
        item = await self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item


Outcome = Reply | BaseException | Dictated


class ScriptedBackend:
    """Answers with the outcomes in order, then with `reply()`. While held, calls wait within their timeout: before
    anything (`hold`), or, of a stream, after its first piece (`rest.hold`).

    A stream brings its reply's text word by word; an outcome that is an exception comes before the first piece, or
    after it where `fail_after_first_piece` is set.
    """

    default_model = "model-a"
    provider = "test.scripted"

    def __init__(self, *outcomes: Outcome, locations: tuple[str, ...] = ("here",)) -> None:
        self.outcomes = deque(outcomes)
        self.at: defaultdict[str, deque[Outcome]] = defaultdict(deque)  # before those for any location
        self.locations = locations
        self.calls: list[Call] = []
        self.cancelled: list[str] = []
        self.most_at_once = 0
        self.is_closed = False
        self.fail_after_first_piece = False
        self.rest = Gates()
        self._start = Gates()
        self._at_once = 0

    def hold(self, location: str | None = None) -> None:
        self._start.hold(location)

    def release(self, location: str | None = None) -> None:
        self._start.release(location)

    def dictate(self, location: str) -> Dictated:
        """The next outcome there."""
        self.at[location].append(Dictated())
        return self.at[location][-1]

    @property
    def asked(self) -> list[str]:
        """Where the calls went, in order."""
        return [call.location for call in self.calls]

    def address(self, location: str) -> str:
        return f"{location}.example:443"

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        with self._under_way(Call(request, location, timeout_seconds)):
            async with _within(timeout_seconds):
                await self._start.passed(location)
                outcome = self._next(location)
                while isinstance(outcome, Dictated):
                    item = await outcome.next()
                    outcome = item if isinstance(item, Reply) else outcome
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def stream(
        self, request: GenerationRequest, *, location: str, timeout_seconds: float
    ) -> AsyncGenerator[str | Reply, None]:
        with self._under_way(Call(request, location, timeout_seconds, streamed=True)):
            deadline = Deadline.after(timeout_seconds)
            async with _within(deadline.remaining_seconds()):
                await self._start.passed(location)
            outcome = self._next(location)
            items = (
                self._dictated(outcome, deadline) if isinstance(outcome, Dictated) else self._told(outcome, location)
            )
            async for item in items:
                yield item

    async def _dictated(self, outcome: Dictated, deadline: Deadline) -> AsyncIterator[str | Reply]:
        item: str | Reply = ""
        while not isinstance(item, Reply):
            async with _within(deadline.remaining_seconds()):
                item = await outcome.next()
            yield item

    async def _told(self, outcome: Reply | BaseException, location: str) -> AsyncIterator[str | Reply]:
        if isinstance(outcome, BaseException):
            if self.fail_after_first_piece:
                yield "Broken "
            raise outcome
        first, space, rest = outcome.text.partition(" ")
        yield first + space
        await self.rest.passed(location)
        words = rest.split(" ") if rest else []
        for number, word in enumerate(words, start=1):
            yield word if number == len(words) else word + " "
        yield outcome

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        with self._under_way(Call((model, prompt), location, timeout_seconds)):
            async with _within(timeout_seconds):
                await self._start.passed(location)
        outcome = self._next(location) if self.outcomes or self.at[location] else None
        if isinstance(outcome, Exception):
            raise outcome
        return 42

    async def close(self) -> None:
        self.is_closed = True

    def _next(self, location: str) -> Outcome:
        if self.at[location]:
            return self.at[location].popleft()
        return self.outcomes.popleft() if self.outcomes else reply(location=location)

    @contextmanager
    def _under_way(self, call: Call) -> Iterator[None]:
        self.calls.append(call)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled.append(call.location)
            raise
        finally:
            self._at_once -= 1


@asynccontextmanager
async def _within(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise DeadlineExceeded from None
