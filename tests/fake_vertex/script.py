"""What the fake has been told to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tests.fake_vertex import messages
from tests.fake_vertex.messages import BlockedReason, Counts, FinishReason

# The details of every failure: text that must not reach anybody.
UPSTREAM_TEXT: Final = "upstream-text-with-project-secrets"


@dataclass(frozen=True, slots=True)
class Fail:
    code: grpc.StatusCode
    trailers: tuple[tuple[str, str | bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Hang:
    pass


@dataclass(frozen=True, slots=True)
class Finish:
    """An answer that ends for this reason, its text cut after so many characters (None: not cut)."""

    reason: int = FinishReason.STOP
    after_characters: int | None = None
    aborts_stream: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """No candidates; 0 gives no reason."""

    blocked_reason: int = 0


Behaviour = Fail | Hang | Finish | Nothing
ANSWER: Final = Finish()


@dataclass(slots=True)
class _Planned:
    behaviour: Behaviour
    remaining: int | None


@dataclass(eq=False)
class Script:
    """The behaviours still to come, and what a normal answer holds."""

    _text: str | Callable[[Any], str] = messages.default_answer
    _thought: str = ""
    _model_version: str | None = None
    _counts: Counts = field(default_factory=Counts)
    _delay_seconds: float = 0.0
    _planned: list[_Planned] = field(default_factory=list)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, text: str | Callable[[Any], str]) -> None:
        self._text = text

    def think(self, thought: str) -> None:
        self._thought = thought

    def name_model(self, model_version: str) -> None:
        """What the answers say made them; the model asked for, unless told."""
        self._model_version = model_version

    def usage(
        self,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int = 0,
        thinking_tokens: int = 0,
    ) -> None:
        self._counts = Counts(input_tokens, output_tokens, cached_tokens, thinking_tokens)

    def delay(self, seconds: float) -> None:
        self._delay_seconds = seconds

    def fail(
        self,
        code: grpc.StatusCode,
        *,
        times: int | None = None,
        retry_after_seconds: float | None = None,
        retry_after_trailer: str | None = None,
    ) -> None:
        """`retry_after_seconds` travels as google.rpc.RetryInfo, `retry_after_trailer` as a `retry-after` trailer."""
        trailers: list[tuple[str, str | bytes]] = []
        if retry_after_seconds is not None:
            trailers.append(("grpc-status-details-bin", _retry_info(code, retry_after_seconds)))
        if retry_after_trailer is not None:
            trailers.append(("retry-after", retry_after_trailer))
        self._plan(Fail(code, tuple(trailers)), times)

    def hang(self, *, times: int | None = None) -> None:
        self._plan(Hang(), times)

    def release(self) -> None:
        """Let hanging calls answer, and hang no more."""
        self._planned = [planned for planned in self._planned if planned.behaviour != Hang()]
        self._released.set()
        self._released = asyncio.Event()

    def finish(self, reason: int, *, times: int | None = None) -> None:
        self._plan(Finish(reason), times)

    def block_for_safety(self, *, times: int | None = None) -> None:
        self._plan(Finish(FinishReason.SAFETY, after_characters=0), times)

    def block_prompt(self, *, times: int | None = None) -> None:
        self._plan(Nothing(BlockedReason.PROHIBITED_CONTENT), times)

    def empty(self, *, times: int | None = None) -> None:
        self._plan(Nothing(), times)

    def cut_off(self, *, after_characters: int, times: int | None = None) -> None:
        self._plan(Finish(FinishReason.MAX_TOKENS, after_characters, aborts_stream=True), times)

    def reset(self) -> None:
        self.release()
        self._planned.clear()
        self._text, self._thought, self._model_version = messages.default_answer, "", None
        self._counts, self._delay_seconds = Counts(), 0.0

    def next_behaviour(self) -> Behaviour:
        if not self._planned:
            return ANSWER
        planned = self._planned[0]
        if planned.remaining is not None:
            planned.remaining -= 1
            if planned.remaining <= 0:
                self._planned.pop(0)
        return planned.behaviour

    def compose(self, request: Any, behaviour: Finish | Nothing) -> Any:
        if isinstance(behaviour, Nothing):
            return messages.respond_nothing(request, blocked_reason=behaviour.blocked_reason, counts=self._counts)
        text = self._text if isinstance(self._text, str) else self._text(request)
        response = messages.respond(
            request,
            text[: behaviour.after_characters],
            thought=self._thought,
            counts=self._counts,
            finish_reason=behaviour.reason,
        )
        if self._model_version is not None:
            response.model_version = self._model_version
        return response

    async def wait_before_answer(self) -> None:
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)

    async def wait_for_release(self) -> None:
        await self._released.wait()

    def _plan(self, behaviour: Behaviour, times: int | None) -> None:
        self._planned.append(_Planned(behaviour, times))


def _retry_info(code: grpc.StatusCode, seconds: float) -> bytes:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=UPSTREAM_TEXT, details=[packed])
    return bytes(status.SerializeToString())
