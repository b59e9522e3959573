"""A backend in this process that does as it is told, for tests of what stands in front of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from chassis.errors import DeadlineExceeded
from llm_gateway.generation import FinishReason, GenerationRequest, Prompt, Reply, Role, Turn, Usage


def reply(text: str = "Hello!", finish_reason: FinishReason = FinishReason.STOP, location: str = "here") -> Reply:
    return Reply(text, "model-a-001", location, finish_reason, Usage(11, 7, 3, 2))


def asking(text: str = "Hi", **fields: object) -> GenerationRequest:
    return GenerationRequest("model-a", Prompt("You are Lua.", (Turn(Role.USER, text),)), **fields)


async def until(holds: Callable[[], bool], *, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Call:
    request: object
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

    async def passed(self, location: str, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._gates[None].wait()
                await self._gates[location].wait()
        except TimeoutError:
            raise DeadlineExceeded from None


class ScriptedBackend:
    """Answers with the outcomes in order, then with `reply()`. While held, calls wait within their timeout: before
    anything (`hold`), or, of a stream, after its first piece (`rest.hold`).

    A stream brings its reply's text word by word; an outcome that is an exception comes before the first piece, or after
    it where `fail_after_first_piece` is set.
    """

    default_model = "model-a"

    def __init__(self, *outcomes: Reply | Exception, locations: tuple[str, ...] = ("here",)) -> None:
        self.outcomes = deque(outcomes)
        self.at: defaultdict[str, deque[Reply | Exception]] = defaultdict(deque)  # before those for any location
        self.locations = locations
        self.calls: list[Call] = []
        self.cancelled: list[str] = []
        self.most_at_once = 0
        self.fail_after_first_piece = False
        self.rest = Gates()
        self._start = Gates()
        self._at_once = 0

    def hold(self, location: str | None = None) -> None:
        self._start.hold(location)

    def release(self, location: str | None = None) -> None:
        self._start.release(location)

    @property
    def asked(self) -> list[str]:
        """Where the calls went, in order."""
        return [call.location for call in self.calls]

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        await self._pass(Call(request, location, timeout_seconds), self._start)
        outcome = self._next(location)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def stream(
        self, request: GenerationRequest, *, location: str, timeout_seconds: float
    ) -> AsyncGenerator[str | Reply, None]:
        call = Call(request, location, timeout_seconds, streamed=True)
        await self._pass(call, self._start)
        outcome = self._next(location)
        if isinstance(outcome, BaseException):
            if self.fail_after_first_piece:
                yield "Broken "
            raise outcome
        first, space, rest = outcome.text.partition(" ")
        yield first + space
        await self._pass(call, self.rest, again=True)
        for word in rest.split(" ") if rest else ():
            yield word + " " if word != rest.split(" ")[-1] else word
        yield outcome

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        await self._pass(Call((model, prompt), location, timeout_seconds), self._start)
        outcome = self._next(location) if self.outcomes or self.at[location] else None
        if isinstance(outcome, Exception):
            raise outcome
        return 42

    async def close(self) -> None:
        """Holds nothing."""

    def _next(self, location: str) -> Reply | Exception:
        if self.at[location]:
            return self.at[location].popleft()
        return self.outcomes.popleft() if self.outcomes else reply(location=location)

    async def _pass(self, call: Call, gates: Gates, *, again: bool = False) -> None:
        if not again:
            self.calls.append(call)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await gates.passed(call.location, call.timeout_seconds)
        except asyncio.CancelledError:
            self.cancelled.append(call.location)
            raise
        finally:
            self._at_once -= 1
