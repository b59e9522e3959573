"""What the fake has been told to do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from tests.fake_vertex import messages
from tests.fake_vertex.law import Delay, LatencyLaw
from tests.fake_vertex.messages import BlockedReason, Counts, FinishReason

# The details of every failure: text that must not reach anybody.
UPSTREAM_TEXT: Final = "upstream-text-with-project-secrets"


@dataclass(frozen=True, slots=True)
class Fail:
    """A stream fails after so many pieces. `at_once`: without the delay of an answer."""

    code: grpc.StatusCode
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    after_pieces: int = 0
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """A stream hangs after so many pieces."""

    released: asyncio.Event
    after_pieces: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """An answer that ends for this reason, its text cut after so many characters (None: not cut)."""

    reason: int = FinishReason.STOP
    after_characters: int | None = None
    aborts_stream: bool = False


@dataclass(frozen=True, slots=True)
class BreakOff:
    """An answer whose end is missing: no finish reason, no usage; or else it fails there."""

    after_characters: int
    cleanly: bool


@dataclass(frozen=True, slots=True)
class Nothing:
    """No candidates; 0 gives no reason."""

    blocked_reason: int = 0


Behaviour = Fail | Hang | Finish | BreakOff | Nothing
ANSWER: Final = Finish()
AT_ONCE: Final = Delay(0.0)
UNAVAILABLE_AT_ONCE: Final = Fail(grpc.StatusCode.UNAVAILABLE, at_once=True)


@dataclass(slots=True)
class _Planned:
    behaviour: Behaviour
    remaining: int | None


@dataclass(eq=False)
class Script:
    """The behaviours still to come, and what a normal answer holds."""

    location: str | None = None
    piece_characters: int = 24
    _text: str | Callable[[Any], str] = messages.default_answer
    _pieces: tuple[str, ...] = ()
    _thought: str = ""
    _model_version: str | None = None
    _counts: Counts = field(default_factory=Counts)
    _delay: Delay = AT_ONCE
    _law: LatencyLaw | None = None
    _error_share: float = 0.0
    _error_random: random.Random = field(default_factory=random.Random)
    _planned: list[_Planned] = field(default_factory=list)
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, text: str | Callable[[Any], str]) -> None:
        self._text, self._pieces = text, ()

    def pieces(self, texts: Sequence[str]) -> None:
        """The answer, a stream of exactly these pieces."""
        self._text, self._pieces = "".join(texts), tuple(texts)

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
        """Before every answer or failure, of CountTokens too."""
        self._delay = Delay(seconds)

    def follow_law(self, *, seed: int | str, first_token_share: float | None = None, scale: float = 1.0) -> None:
        """See LatencyLaw. It starts anew, and takes the place of `delay` but for CountTokens; every call takes the
        next of its delays, failing ones too."""
        self._law = LatencyLaw(
            seed=seed, location=self.location or "", first_token_share=first_token_share, scale=scale
        )

    def follow_no_law(self) -> None:
        self._law = None

    def error_rate(self, share: float, *, seed: int | str = 0) -> None:
        """That share of the calls that nothing else is planned for fails at once with UNAVAILABLE."""
        self._error_share, self._error_random = share, random.Random(f"errors {seed}")

    def fail(
        self,
        code: grpc.StatusCode,
        *,
        times: int | None = None,
        retry_after_seconds: float | None = None,
        retry_after_trailer: str | None = None,
        after_pieces: int = 0,
    ) -> None:
        """`retry_after_seconds` travels as google.rpc.RetryInfo, `retry_after_trailer` as a `retry-after` trailer.
        `after_pieces` is of streams alone; at most all of them are sent."""
        trailers: list[tuple[str, str | bytes]] = []
        if retry_after_seconds is not None:
            trailers.append(("grpc-status-details-bin", _retry_info(code, retry_after_seconds)))
        if retry_after_trailer is not None:
            trailers.append(("retry-after", retry_after_trailer))
        self._plan(Fail(code, tuple(trailers), after_pieces), times)

    def hang(self, *, times: int | None = None) -> None:
        self._plan(Hang(self._released), times)

    def hold_after_pieces(self, count: int, *, times: int | None = None) -> None:
        """A stream hangs after so many pieces, at most all, before its end."""
        self._plan(Hang(self._released, count), times)

    def release(self) -> None:
        """Let hanging calls answer, and hang no more."""
        self._planned = [planned for planned in self._planned if not isinstance(planned.behaviour, Hang)]
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

    def break_off(self, *, after_characters: int, cleanly: bool, times: int | None = None) -> None:
        """The answer ends there: `cleanly` with status OK, but no finish reason and no usage; else with UNAVAILABLE."""
        self._plan(BreakOff(after_characters, cleanly), times)

    def behave(self) -> None:
        """Back to answering at its pace: no hanging, failing or cutting any more."""
        self.release()
        self._planned.clear()
        self._error_share = 0.0

    def reset(self) -> None:
        self.behave()
        self._text, self._pieces, self._thought, self._model_version = messages.default_answer, (), "", None
        self._counts, self._delay, self._law = Counts(), AT_ONCE, None

    def next_behaviour(self) -> Behaviour:
        if not self._planned:
            fails = self._error_share and self._error_random.random() < self._error_share
            return UNAVAILABLE_AT_ONCE if fails else ANSWER
        planned = self._planned[0]
        if planned.remaining is not None:
            planned.remaining -= 1
            if planned.remaining <= 0:
                self._planned.pop(0)
        return planned.behaviour

    def next_delay(self) -> Delay:
        return self._law.draw() if self._law else self._delay

    def compose(self, request: Any, behaviour: Behaviour) -> Any:
        """The whole answer; of one that breaks off, what there is of it."""
        if isinstance(behaviour, Nothing):
            return messages.respond_nothing(request, blocked_reason=behaviour.blocked_reason, counts=self._counts)
        text = self._text if isinstance(self._text, str) else self._text(request)
        response = messages.respond(
            request,
            text[: getattr(behaviour, "after_characters", None)],
            thought=self._thought,
            counts=self._counts,
            finish_reason=getattr(behaviour, "reason", FinishReason.STOP),
        )
        if self._model_version is not None:
            response.model_version = self._model_version
        if isinstance(behaviour, BreakOff):
            messages.leave_out_end(response)
        return response

    def compose_stream(self, request: Any, behaviour: Behaviour) -> list[Any]:
        """The same in pieces, then one message with the finish reason and the usage."""
        sizes = [len(piece) for piece in self._pieces]
        return messages.in_pieces(self.compose(request, behaviour), sizes, self.piece_characters)

    def _plan(self, behaviour: Behaviour, times: int | None) -> None:
        self._planned.append(_Planned(behaviour, times))


def _retry_info(code: grpc.StatusCode, seconds: float) -> bytes:
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(round(seconds * 1000))
    packed = any_pb2.Any()
    packed.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=UPSTREAM_TEXT, details=[packed])
    return bytes(status.SerializeToString())
