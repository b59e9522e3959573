"""A chat completion as it comes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Final

from msgspec import UNSET, UnsetType

from chassis.caller import StreamedTokens
from chassis.deadline import Deadline
from chassis.errors import IonError
from gateway_http import exchange
from gateway_http import translation as common
from gateway_http.event_stream import Event, event_stream
from gateway_http.openai import answers, errors
from gateway_http.openai.models import AUTO, model_of
from gateway_http.openai.schemas import ChatCompletionChunk, ChunkChoice, Delta, FinishReason, Ion, Usage
from gateway_http.router_client import RouterClient, read_to_end
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2

# What broke off has no [DONE] after the error, so that no reader takes it for whole.
STREAM: Final = event_stream(lambda error: Event("", errors.body(error)))
_DONE: Final = Event("", b"[DONE]")


async def events(
    router: RouterClient, asked: router_pb2.ChatStreamRequest, deadline: Deadline, *, include_usage: bool
) -> AsyncGenerator[Event, None]:
    """The first is there once the model's first text is: what fails before that is raised before any event. Raises
    IonError where the router's stream does not come to its `done`."""
    chunks = Chunks(include_usage=include_usage)
    try:
        with StreamedTokens() as tokens:
            async with aclosing(router.chat_stream(asked, deadline)) as pieces:
                async for piece in pieces:
                    _note(tokens, piece)
                    for chunk in chunks.of(piece):
                        yield Event("", chunk)
                    if piece.HasField("done"):
                        yield _DONE
                        exchange.current().is_complete = True
                        await read_to_end(pieces)
                        return
    except IonError as error:
        for chunk in chunks.after(error):
            yield Event("", chunk)
        yield _DONE
        return
    raise IonError(Reason.REASON_MODEL_INTERRUPTED)


def _note(tokens: StreamedTokens, piece: router_pb2.ChatStreamResponse) -> None:
    match piece.WhichOneof("event"):
        case "routed":
            exchange.current().persona = piece.routed.routing.persona
        case "text":
            exchange.current().note_text()
            tokens.passed_on(piece.text)
        case "done":
            exchange.current().cache = common.cache_name(piece.done)
            tokens.told(common.used_tokens(piece.done.generation))


class Chunks:
    """The chunks of one stream. With `include_usage` the usage has a chunk of its own at the end, and is null in all
    others."""

    def __init__(self, *, include_usage: bool) -> None:
        self._routing = router_pb2.Routing()
        self._identity = answers.Identity(AUTO)
        self._begun = False
        self._no_usage: UnsetType | None = None if include_usage else UNSET

    def of(self, piece: router_pb2.ChatStreamResponse) -> Iterator[ChatCompletionChunk]:
        """The choice is kept for the first text, before which there is no chunk."""
        match piece.WhichOneof("event"):
            case "routed":
                self._routing = piece.routed.routing
                self._identity = answers.Identity(model_of(self._routing.persona))
            case "text":
                yield from self._opening()
                yield self._chunk(Delta(content=piece.text))
            case "done":
                yield from self._done(piece.done)

    def after(self, error: IonError) -> Iterator[ChatCompletionChunk]:
        """The end of a stream of which nothing passed the model's filters. Raises IonError for all other failures."""
        if not self._begun:
            if error.reason != Reason.REASON_MODEL_BLOCKED:
                raise error
            yield from self._opening()
            yield from self._end("content_filter", answers.NO_USAGE)
        elif error.reason == Reason.REASON_ROUTER_UNAVAILABLE:
            raise IonError(Reason.REASON_MODEL_INTERRUPTED) from error
        else:
            raise error

    def _opening(self) -> Iterator[ChatCompletionChunk]:
        if not self._begun:
            self._begun = True
            yield self._chunk(Delta(role="assistant", content="", refusal=None), ion=answers.ion(self._routing))

    def _done(self, done: router_pb2.ChatDone) -> Iterator[ChatCompletionChunk]:
        if done.fallback:  # by a router of an older version
            raise IonError(done.failure.reason)
        yield from self._opening()
        yield from self._end(
            answers.finish_reason(done.generation), answers.usage(done.generation), answers.ion(self._routing, done)
        )

    def _end(self, reason: FinishReason, usage: Usage, ion: Ion | UnsetType = UNSET) -> Iterator[ChatCompletionChunk]:
        yield self._chunk(Delta(), reason, ion)
        if self._no_usage is None:
            yield self._with([], usage)

    def _chunk(
        self, delta: Delta, finish_reason: FinishReason | None = None, ion: Ion | UnsetType = UNSET
    ) -> ChatCompletionChunk:
        return self._with([ChunkChoice(delta=delta, finish_reason=finish_reason)], self._no_usage, ion)

    def _with(
        self, choices: list[ChunkChoice], usage: Usage | UnsetType | None, ion: Ion | UnsetType = UNSET
    ) -> ChatCompletionChunk:
        of = self._identity
        return ChatCompletionChunk(id=of.id, created=of.created, model=of.model, choices=choices, usage=usage, ion=ion)
