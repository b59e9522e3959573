"""A backend in this process that does as it is told, for tests of what stands in front of it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from chassis.errors import DeadlineExceeded
from llm_gateway.generation import FinishReason, GenerationRequest, Prompt, Reply, Role, Turn, Usage


def reply(text: str = "Hello!", finish_reason: FinishReason = FinishReason.STOP) -> Reply:
    return Reply(text, "model-a-001", "here", finish_reason, Usage(11, 7, 3, 2))


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


class ScriptedBackend:
    """Answers with the outcomes in order, then with `reply()`. While held, calls wait within their timeout."""

    default_model = "model-a"

    def __init__(self, *outcomes: Reply | Exception, locations: tuple[str, ...] = ("here",)) -> None:
        self.outcomes = deque(outcomes)
        self.locations = locations
        self.calls: list[Call] = []
        self.cancelled = 0
        self.most_at_once = 0
        self._at_once = 0
        self._open = asyncio.Event()
        self._open.set()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        await self._pass(Call(request, location, timeout_seconds))
        outcome = self.outcomes.popleft() if self.outcomes else reply()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        await self._pass(Call((model, prompt), location, timeout_seconds))
        if self.outcomes:
            raise self.outcomes.popleft()
        return 42

    async def close(self) -> None:
        """Holds nothing."""

    async def _pass(self, call: Call) -> None:
        self.calls.append(call)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            async with asyncio.timeout(call.timeout_seconds):
                await self._open.wait()
        except TimeoutError:
            raise DeadlineExceeded from None
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self._at_once -= 1
