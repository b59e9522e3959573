"""What telemetry tells of the attempts at a reply: a span each, by the GenAI conventions, and their measurements."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any, Final

from chassis import telemetry
from chassis.errors import DeadlineExceeded
from chassis.observability import metrics, tracing
from chassis.observability.rpc import address_of
from llm_gateway.attempts import Attempt, Ending, Kind
from llm_gateway.generation import FinishReason, GenerationRequest, Parameters, Reply, Role, Usage
from llm_gateway.means import Means

CONTENT_VARIABLE: Final = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_TELLS_CONTENT: Final = frozenset({"true", "span_only", "span_and_event"})
_OPERATION: Final = "generate_content"
_CUT_OFF: Final = "CANCELLED"
# As the conventions' schema of messages has them.
_ROLES: Final = {Role.USER: "user", Role.MODEL: "assistant"}
_FINISH_REASONS: Final = {FinishReason.STOP: "stop", FinishReason.MAX_TOKENS: "length"}


def tells_content(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the operator has said, by the standard variable, that spans are to hold what is said."""
    return environment.get(CONTENT_VARIABLE, "").lower() in _TELLS_CONTENT


class AttemptTelemetry:
    """Of the attempts at one reply. `streamed`: they are asked for in pieces."""

    def __init__(self, means: Means, request: GenerationRequest, *, streamed: bool) -> None:
        self._means = means
        self._request = request
        self._streamed = streamed
        self._model = means.labels.model(request.model)

    def begin(self, kind: Kind, location: str) -> tracing.Span:
        """To be ended with `end`."""
        span = tracing.span(telemetry.GEN_AI_CLIENT, f"{_OPERATION} {self._model}", self._asked())
        if span.is_recorded:
            _set(span, address_of(address) if (address := self._means.backend.address(location)) else {})
            _set(span, {telemetry.ATTEMPT_KIND: kind.value, telemetry.LOCATION: location})
            _set(span, _optional(self._request))
            if self._means.tells_content:
                _set(span, _prompt(self._request))
        return span

    def end(self, attempt: Attempt, ending: Ending) -> None:
        """However the call goes on, it is over for the request: told as it is now."""
        reply = attempt.outcome if isinstance(attempt.outcome, Reply) else None
        failure = "" if reply else _failure(attempt, ending)
        if metrics.is_on():
            self._measure(attempt, reply, failure)
        span = attempt.span
        if span.is_recorded:
            span.set(telemetry.ATTEMPT_OUTCOME, ending.value)
            if self._streamed and attempt.first_token_seconds is not None:
                span.set(telemetry.GEN_AI_RESPONSE_FIRST_CHUNK, attempt.first_token_seconds)
            if reply:
                _set(span, self._answered(reply))
            if failure:
                span.fail(failure, is_error=ending is Ending.FAILED)
        span.end_with(None)

    def _asked(self) -> dict[str, Any]:
        return {
            telemetry.GEN_AI_OPERATION: _OPERATION,
            telemetry.GEN_AI_PROVIDER: self._means.backend.provider,
            telemetry.GEN_AI_REQUEST_MODEL: self._request.model,
            telemetry.GEN_AI_REQUEST_STREAM: self._streamed,
        }

    def _answered(self, reply: Reply) -> dict[str, Any]:
        usage = reply.usage
        told: dict[str, Any] = {
            telemetry.GEN_AI_RESPONSE_MODEL: reply.model,
            telemetry.GEN_AI_RESPONSE_FINISH_REASONS: (reply.finish_reason.value,),
            telemetry.GEN_AI_USAGE_INPUT: usage.input_tokens,
            telemetry.GEN_AI_USAGE_OUTPUT: _made(usage),
            telemetry.GEN_AI_USAGE_CACHED: usage.cached_input_tokens,
            telemetry.GEN_AI_USAGE_REASONING: usage.thinking_tokens,
        }
        if self._means.tells_content:
            message = _message(Role.MODEL, reply.text) | {"finish_reason": _FINISH_REASONS[reply.finish_reason]}
            told[telemetry.GEN_AI_OUTPUT_MESSAGES] = _json([message])
        return told

    def _measure(self, attempt: Attempt, reply: Reply | None, failure: str) -> None:
        called = {
            telemetry.GEN_AI_OPERATION: _OPERATION,
            telemetry.GEN_AI_PROVIDER: self._means.backend.provider,
            telemetry.GEN_AI_REQUEST_MODEL: self._model,
        }
        located = called | {telemetry.LOCATION: attempt.call.location}
        ended = located | {telemetry.ATTEMPT_KIND: attempt.kind.value}
        if failure:
            ended[telemetry.ERROR_TYPE] = failure
        seconds = time.monotonic() - attempt.started_at
        metrics.record(telemetry.GEN_AI_DURATION, seconds, ended, attempt.span)
        if self._streamed and attempt.first_token_seconds is not None:
            metrics.record(telemetry.GEN_AI_FIRST_CHUNK, attempt.first_token_seconds, located, attempt.span)
        if reply:
            for kind, tokens in (("input", reply.usage.input_tokens), ("output", _made(reply.usage))):
                counted = called | {telemetry.GEN_AI_TOKEN_TYPE: kind}
                metrics.record(telemetry.GEN_AI_TOKENS, tokens, counted, attempt.span)


def _failure(attempt: Attempt, ending: Ending) -> str:
    """Why there is no reply. One that is given up for another after half of its time has run out of time."""
    if isinstance(attempt.outcome, Exception):
        return tracing.error_type(attempt.outcome)
    return tracing.error_type(DeadlineExceeded()) if ending is Ending.FAILED else _CUT_OFF


def _made(usage: Usage) -> int:
    return usage.output_tokens + usage.thinking_tokens


def _optional(request: GenerationRequest) -> dict[str, Any]:
    """What is asked for, where it is."""
    parameters: Parameters = request.parameters
    asked = {
        telemetry.GEN_AI_REQUEST_TEMPERATURE: _rounded(parameters.temperature),
        telemetry.GEN_AI_REQUEST_TOP_P: _rounded(parameters.top_p),
        telemetry.GEN_AI_REQUEST_MAX_TOKENS: parameters.max_output_tokens or None,
        telemetry.GEN_AI_OUTPUT_TYPE: "json" if parameters.response_json_schema else "text",
        telemetry.PERSONA: request.persona or None,
    }
    return {key: value for key, value in asked.items() if value is not None}


def _rounded(value: float | None) -> float | None:
    """It came as a float of 32 bits."""
    return None if value is None else round(value, 6)


def _prompt(request: GenerationRequest) -> dict[str, Any]:
    instructions = request.prompt.system_instruction
    said = {telemetry.GEN_AI_INPUT_MESSAGES: _json([_message(turn.role, turn.text) for turn in request.prompt.turns])}
    return said | ({telemetry.GEN_AI_SYSTEM_INSTRUCTIONS: _json([_text(instructions)])} if instructions else {})


def _message(role: Role, text: str) -> dict[str, Any]:
    return {"role": _ROLES[role], "parts": [_text(text)]}


def _text(content: str) -> dict[str, str]:
    return {"type": "text", "content": content}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _set(span: tracing.Span, attributes: Mapping[str, Any]) -> None:
    for key, value in attributes.items():
        span.set(key, value)
