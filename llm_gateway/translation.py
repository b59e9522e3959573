"""Wire to domain and back: what the gateway's messages mean."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from google.protobuf import json_format, struct_pb2

from chassis.errors import InvalidField, IonError, to_failure
from ion.llm.v1 import llm_pb2
from llm_gateway.flights import CacheStatus, Completed
from llm_gateway.generation import CacheControl, FinishReason, GenerationRequest, Parameters, Prompt, Role, Turn, Usage

MAX_CONTENTS: Final = 1000
MAX_OUTPUT_TOKENS: Final = 65536
MAX_STOP_SEQUENCES: Final = 5
MAX_STOP_CHARACTERS: Final = 64
MAX_SCHEMA_CHARACTERS: Final = 8192
MAX_NAME_CHARACTERS: Final = 128
MAX_SCOPE_CHARACTERS: Final = 256

_CACHE: Final = {
    CacheStatus.HIT: llm_pb2.CACHE_STATUS_HIT,
    CacheStatus.MISS: llm_pb2.CACHE_STATUS_MISS,
    CacheStatus.COALESCED: llm_pb2.CACHE_STATUS_COALESCED,
    CacheStatus.OFF: llm_pb2.CACHE_STATUS_OFF,
    CacheStatus.STALE: llm_pb2.CACHE_STATUS_STALE,
}
_FINISH: Final = {
    FinishReason.STOP: llm_pb2.FINISH_REASON_STOP,
    FinishReason.MAX_TOKENS: llm_pb2.FINISH_REASON_MAX_TOKENS,
}
_ROLES: Final = {
    llm_pb2.ROLE_UNSPECIFIED: Role.USER,
    llm_pb2.ROLE_USER: Role.USER,
    llm_pb2.ROLE_MODEL: Role.MODEL,
}


def read_request(
    request: llm_pb2.GenerateRequest | llm_pb2.StreamGenerateRequest, default_model: str, principal: str = ""
) -> GenerationRequest:
    """Raises InvalidField for a value out of the bounds that llm.proto states. `principal` is who the call is for:
    it has scopes of its own."""
    check_length(request.model, MAX_NAME_CHARACTERS, "model")
    check_length(request.persona, MAX_NAME_CHARACTERS, "persona")
    check_length(request.language, MAX_NAME_CHARACTERS, "language")
    check_length(request.scope, MAX_SCOPE_CHARACTERS, "scope")
    check(request.max_input_tokens >= 0, "max_input_tokens", "must be at least 0")
    return GenerationRequest(
        model=request.model or default_model,
        prompt=read_prompt(request.prompt),
        parameters=_read_parameters(request.parameters),
        persona=request.persona,
        language=request.language,
        scope=_scope_of(principal, request),
        cache=_read_cache_control(request.cache_control),
        may_hedge=not request.no_hedge,
        max_input_tokens=request.max_input_tokens,
    )


def _scope_of(principal: str, request: llm_pb2.GenerateRequest | llm_pb2.StreamGenerateRequest) -> str:
    """Empty stays empty for a conversation, whose reply is then not shared with anybody."""
    if not principal or (not request.scope and len(request.prompt.contents) > 1):
        return request.scope
    return f"{principal}/{request.scope}"


def _read_cache_control(given: llm_pb2.CacheControl) -> CacheControl:
    max_age_seconds = given.max_age_seconds if given.HasField("max_age_seconds") else None
    check(max_age_seconds is None or max_age_seconds >= 0, "cache_control.max_age_seconds", "must be at least 0")
    return CacheControl(given.bypass, given.no_store, max_age_seconds)


def read_prompt(prompt: llm_pb2.Prompt) -> Prompt:
    contents = prompt.contents
    check(1 <= len(contents) <= MAX_CONTENTS, "prompt.contents", f"must have 1 to {MAX_CONTENTS} entries")
    turns = tuple(_read_turn(number, content) for number, content in enumerate(contents))
    check(turns[-1].role is Role.USER, f"prompt.contents.{len(turns) - 1}.role", "must be ROLE_USER in the last entry")
    return Prompt(prompt.system_instruction, turns)


def _read_turn(number: int, content: llm_pb2.Content) -> Turn:
    role = _ROLES.get(content.role)
    if role is None:
        raise InvalidField(f"prompt.contents.{number}.role", "must be ROLE_USER or ROLE_MODEL")
    if not content.text:
        raise InvalidField(f"prompt.contents.{number}.text", "must not be empty")
    return Turn(role, content.text)


def _read_parameters(given: llm_pb2.GenerationParameters) -> Parameters:
    temperature = given.temperature if given.HasField("temperature") else None
    top_p = given.top_p if given.HasField("top_p") else None
    check(_within(temperature, 0, 2), "parameters.temperature", "must be from 0 to 2")
    check(_within(top_p, 0, 1) and top_p != 0, "parameters.top_p", "must be above 0 and at most 1")
    check(
        0 <= given.max_output_tokens <= MAX_OUTPUT_TOKENS,
        "parameters.max_output_tokens",
        f"must be from 0 to {MAX_OUTPUT_TOKENS}",
    )
    _check_stop_sequences(given.stop_sequences)
    _check_schema(given.response_json_schema)
    return Parameters(
        temperature,
        top_p,
        given.max_output_tokens,
        tuple(given.stop_sequences),
        given.response_json_schema,
        given.minimal_thinking,
    )


def _check_stop_sequences(sequences: Iterable[str]) -> None:
    lengths = [len(sequence) for sequence in sequences]
    allowed = len(lengths) <= MAX_STOP_SEQUENCES and all(1 <= length <= MAX_STOP_CHARACTERS for length in lengths)
    description = f"must have at most {MAX_STOP_SEQUENCES} entries of 1 to {MAX_STOP_CHARACTERS} characters"
    check(allowed, "parameters.stop_sequences", description)


def _check_schema(schema: str) -> None:
    if schema:
        description = f"must be a JSON object of at most {MAX_SCHEMA_CHARACTERS} characters"
        is_object = len(schema) <= MAX_SCHEMA_CHARACTERS and _is_json_object(schema)
        check(is_object, "parameters.response_json_schema", description)


def _is_json_object(text: str) -> bool:
    """Read as it is sent on: into a protobuf value, which bounds its depth too."""
    try:
        return json_format.Parse(text, struct_pb2.Value()).HasField("struct_value")
    except (json_format.ParseError, RecursionError):
        return False


def _within(value: float | None, low: float, high: float) -> bool:
    return value is None or low <= value <= high  # which NaN is not


def check_length(text: str, most: int, field: str) -> None:
    if len(text) > most:
        raise InvalidField(field, f"must have at most {most} characters")


def check(holds: bool, field: str, description: str) -> None:
    if not holds:
        raise InvalidField(field, description)


def response_of(completed: Completed, cost_usd: float | None) -> llm_pb2.GenerateResponse:
    return llm_pb2.GenerateResponse(text=completed.reply.text, generation=generation_of(completed, cost_usd))


def generation_of(completed: Completed, cost_usd: float | None) -> llm_pb2.Generation:
    reply = completed.reply
    return llm_pb2.Generation(
        model=reply.model,
        location=reply.location,
        cache=_CACHE[completed.cache],
        finish_reason=_FINISH[reply.finish_reason],
        usage=usage_of(reply.usage),
        attempts=completed.attempts,
        offline=reply.offline,
        complete=reply.finish_reason is FinishReason.STOP,
        hedges=completed.hedges,
        lost_usage=None if completed.lost_usage == Usage() else usage_of(completed.lost_usage),
        queued_micros=round(completed.queued_seconds * 1e6),
        time_to_first_token_micros=round((completed.first_token_seconds or 0.0) * 1e6),
        estimated_cost_usd=cost_usd,
        trimmed_turns=completed.trimmed_turns,
        age_seconds=round(completed.age_seconds),
    )


def usage_of(usage: Usage) -> llm_pb2.Usage:
    return llm_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        thinking_tokens=usage.thinking_tokens,
    )


def failed_result(error: IonError) -> llm_pb2.BatchGenerateResult:
    return llm_pb2.BatchGenerateResult(failure=to_failure(error))
