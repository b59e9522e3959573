"""The gRPC servicer of the LLM gateway: wire to domain and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc.aio
from google.protobuf import json_format, struct_pb2

from chassis.deadline import Deadline
from chassis.errors import InvalidField, IonError, to_failure
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from llm_gateway.completion import CacheStatus, Completed, Completion
from llm_gateway.generation import FinishReason, GenerationRequest, Parameters, Prompt, Role, Turn

MAX_CONTENTS: Final = 1000
MAX_OUTPUT_TOKENS: Final = 65536
MAX_STOP_SEQUENCES: Final = 5
MAX_STOP_CHARACTERS: Final = 64
MAX_SCHEMA_CHARACTERS: Final = 8192
MAX_NAME_CHARACTERS: Final = 128
MAX_SCOPE_CHARACTERS: Final = 256
MAX_BATCH: Final = 100
MAX_CONCURRENCY: Final = 16
DEFAULT_CONCURRENCY: Final = 8

_CACHE: Final = {
    CacheStatus.HIT: llm_pb2.CACHE_STATUS_HIT,
    CacheStatus.MISS: llm_pb2.CACHE_STATUS_MISS,
    CacheStatus.COALESCED: llm_pb2.CACHE_STATUS_COALESCED,
    CacheStatus.OFF: llm_pb2.CACHE_STATUS_OFF,
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


class LlmGatewayServicer(llm_pb2_grpc.LlmGatewayServiceServicer):
    """Generates replies and counts tokens."""

    def __init__(self, completion: Completion, *, offline: bool, request_timeout_seconds: float) -> None:
        self._completion = completion
        self._offline = offline
        self._request_timeout_seconds = request_timeout_seconds

    async def Generate(
        self, request: llm_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.GenerateResponse:
        asked = read_request(request, self._completion.default_model)
        return response_of(await self._completion.generate(asked, self._deadline(context)))

    async def BatchGenerate(
        self, request: llm_pb2.BatchGenerateRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.BatchGenerateResponse:
        _check(1 <= len(request.requests) <= MAX_BATCH, "requests", f"must have 1 to {MAX_BATCH} entries")
        concurrency_allowed = 0 <= request.max_concurrency <= MAX_CONCURRENCY
        _check(concurrency_allowed, "max_concurrency", f"must be from 0 to {MAX_CONCURRENCY}")
        asked = [self._read_one(item) for item in request.requests]
        outcomes = iter(
            await self._completion.generate_batch(
                [item for item in asked if isinstance(item, GenerationRequest)],
                max_concurrency=request.max_concurrency or DEFAULT_CONCURRENCY,
                deadline=self._deadline(context),
            )
        )
        return llm_pb2.BatchGenerateResponse(
            results=[_result(next(outcomes) if isinstance(item, GenerationRequest) else item) for item in asked]
        )

    async def CountTokens(
        self, request: llm_pb2.CountTokensRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.CountTokensResponse:
        _check_length(request.model, MAX_NAME_CHARACTERS, "model")
        model = request.model or self._completion.default_model
        total = await self._completion.count_tokens(model, _read_prompt(request.prompt), self._deadline(context))
        return llm_pb2.CountTokensResponse(total_tokens=total, offline=self._offline)

    def _read_one(self, request: llm_pb2.GenerateRequest) -> GenerationRequest | IonError:
        try:
            return read_request(request, self._completion.default_model)
        except IonError as error:
            return error

    def _deadline(self, context: grpc.aio.ServicerContext) -> Deadline:
        return Deadline.of(context, default_seconds=self._request_timeout_seconds).less_margin()


def read_request(request: llm_pb2.GenerateRequest, default_model: str) -> GenerationRequest:
    """Raises InvalidField for a value out of the bounds that llm.proto states."""
    _check_length(request.model, MAX_NAME_CHARACTERS, "model")
    _check_length(request.persona, MAX_NAME_CHARACTERS, "persona")
    _check_length(request.language, MAX_NAME_CHARACTERS, "language")
    _check_length(request.scope, MAX_SCOPE_CHARACTERS, "scope")
    return GenerationRequest(
        model=request.model or default_model,
        prompt=_read_prompt(request.prompt),
        parameters=_read_parameters(request.parameters),
        persona=request.persona,
        language=request.language,
        scope=request.scope,
    )


def _read_prompt(prompt: llm_pb2.Prompt) -> Prompt:
    contents = prompt.contents
    _check(1 <= len(contents) <= MAX_CONTENTS, "prompt.contents", f"must have 1 to {MAX_CONTENTS} entries")
    turns = tuple(_read_turn(number, content) for number, content in enumerate(contents))
    _check(turns[-1].role is Role.USER, f"prompt.contents.{len(turns) - 1}.role", "must be ROLE_USER in the last entry")
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
    _check(_within(temperature, 0, 2), "parameters.temperature", "must be from 0 to 2")
    _check(_within(top_p, 0, 1) and top_p != 0, "parameters.top_p", "must be above 0 and at most 1")
    _check(
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
    _check(allowed, "parameters.stop_sequences", description)


def _check_schema(schema: str) -> None:
    if schema:
        description = f"must be a JSON object of at most {MAX_SCHEMA_CHARACTERS} characters"
        is_object = len(schema) <= MAX_SCHEMA_CHARACTERS and _is_json_object(schema)
        _check(is_object, "parameters.response_json_schema", description)


def _is_json_object(text: str) -> bool:
    """Read as it is sent on: into a protobuf value, which bounds its depth too."""
    try:
        return json_format.Parse(text, struct_pb2.Value()).HasField("struct_value")
    except (json_format.ParseError, RecursionError):
        return False


def _within(value: float | None, low: float, high: float) -> bool:
    return value is None or low <= value <= high  # which NaN is not


def _check_length(text: str, most: int, field: str) -> None:
    if len(text) > most:
        raise InvalidField(field, f"must have at most {most} characters")


def _check(holds: bool, field: str, description: str) -> None:
    if not holds:
        raise InvalidField(field, description)


def response_of(completed: Completed) -> llm_pb2.GenerateResponse:
    reply = completed.reply
    usage = reply.usage
    return llm_pb2.GenerateResponse(
        text=reply.text,
        generation=llm_pb2.Generation(
            model=reply.model,
            location=reply.location,
            cache=_CACHE[completed.cache],
            finish_reason=_FINISH[reply.finish_reason],
            usage=llm_pb2.Usage(
                input_tokens=usage.input_tokens,
                output_tokens=usage.output_tokens,
                cached_input_tokens=usage.cached_input_tokens,
                thinking_tokens=usage.thinking_tokens,
            ),
            attempts=completed.attempts,
            offline=reply.offline,
        ),
    )


def _result(outcome: Completed | IonError) -> llm_pb2.BatchGenerateResult:
    if isinstance(outcome, IonError):
        return llm_pb2.BatchGenerateResult(failure=to_failure(outcome))
    return llm_pb2.BatchGenerateResult(response=response_of(outcome))
