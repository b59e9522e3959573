"""What the router answers, as a chat completion."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import UNSET, UnsetType

from chassis.observability import tracing
from gateway_http import translation
from gateway_http.openai.models import model_of
from gateway_http.openai.schemas import (
    ChatCompletion,
    Choice,
    CompletionTokens,
    FinishReason,
    Ion,
    PromptTokens,
    ReplyMessage,
    Usage,
)
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2

NO_USAGE: Final = Usage(0, 0, 0, PromptTokens(0), CompletionTokens(0))
_FINISH: Final[dict[int, FinishReason]] = {llm_pb2.FINISH_REASON_MAX_TOKENS: "length"}


@dataclass(frozen=True, slots=True)
class Identity:
    """What all parts of an answer have in common. `model` is who answers; until that is known, who was asked."""

    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{tracing.current().request_id}")
    created: int = field(default_factory=lambda: int(time.time()))


def completion(response: router_pb2.ChatResponse) -> ChatCompletion:
    routing, generation = response.routing, response.generation
    model = model_of(routing.persona)
    return _completion(model, response.content, finish_reason(generation), usage(generation), ion(routing, response))


def blocked(model: str) -> ChatCompletion:
    """The answer where the model's filters let nothing through. Nobody answered: the model is the one asked for."""
    return _completion(model, "", "content_filter", NO_USAGE)


def _completion(
    model: str, content: str, finish_reason: FinishReason, usage: Usage, ion: Ion | UnsetType = UNSET
) -> ChatCompletion:
    of = Identity(model)
    choice = Choice(message=ReplyMessage(content=content), finish_reason=finish_reason)
    return ChatCompletion(id=of.id, created=of.created, model=of.model, choices=[choice], usage=usage, ion=ion)


def finish_reason(generation: llm_pb2.Generation) -> FinishReason:
    return _FINISH.get(generation.finish_reason, "stop")


def usage(generation: llm_pb2.Generation) -> Usage:
    """Of a stored reply, what it cost when it was made."""
    used = generation.usage
    output = used.output_tokens + used.thinking_tokens
    return Usage(
        prompt_tokens=used.input_tokens,
        completion_tokens=output,
        total_tokens=used.input_tokens + output,
        prompt_tokens_details=PromptTokens(used.cached_input_tokens),
        completion_tokens_details=CompletionTokens(used.thinking_tokens),
    )


def ion(routing: router_pb2.Routing, end: router_pb2.ChatResponse | router_pb2.ChatDone | None = None) -> Ion:
    cache: Any = translation.cache_name(end) if end is not None else UNSET
    return Ion(
        persona=routing.persona,
        resonance_key=routing.resonance_key,
        confidence=routing.confidence,
        reasoning=routing.reasoning,
        scores={score.persona: score.score for score in routing.scores},
        cache=cache,
    )
