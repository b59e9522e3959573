"""The gRPC servicer of the LLM gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import grpc.aio

from chassis import caller, telemetry
from chassis.caller import StreamedTokens, note_tokens
from chassis.deadline import Deadline
from chassis.errors import InvalidField, IonError
from chassis.observability import tracing
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from llm_gateway import statistics
from llm_gateway.catalogue import Catalogue
from llm_gateway.completion import Completion
from llm_gateway.flights import CacheStatus, CacheTier, Completed
from llm_gateway.generation import GenerationRequest
from llm_gateway.translation import (
    MAX_NAME_CHARACTERS,
    MAX_SCOPE_CHARACTERS,
    check,
    check_length,
    failed_result,
    generation_of,
    read_prompt,
    read_request,
    response_of,
)

MAX_BATCH: Final = 100
MAX_CONCURRENCY: Final = 16
DEFAULT_CONCURRENCY: Final = 8


class LlmGatewayServicer(llm_pb2_grpc.LlmGatewayServiceServicer):
    """Generates replies and counts tokens."""

    def __init__(
        self, completion: Completion, catalogue: Catalogue, *, offline: bool, request_timeout_seconds: float
    ) -> None:
        self._completion = completion
        self._catalogue = catalogue
        self._offline = offline
        self._request_timeout_seconds = request_timeout_seconds

    async def Generate(
        self, request: llm_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.GenerateResponse:
        asked = self._read(request)
        completed = await self._completion.generate(asked, self._deadline(context))
        note_tokens(_used_tokens(completed))
        _tell(completed)
        return response_of(completed, self._cost(asked, completed))

    async def StreamGenerate(
        self, request: llm_pb2.StreamGenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[llm_pb2.StreamGenerateResponse]:
        asked = self._read(request)
        with StreamedTokens() as tokens:
            async with aclosing(self._completion.stream(asked, self._deadline(context))) as items:
                async for item in items:
                    if isinstance(item, str):
                        tokens.passed_on(item)
                        yield llm_pb2.StreamGenerateResponse(text=item)
                    else:
                        tokens.told(_used_tokens(item))
                        _tell(item)
                        yield llm_pb2.StreamGenerateResponse(generation=generation_of(item, self._cost(asked, item)))

    async def BatchGenerate(
        self, request: llm_pb2.BatchGenerateRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.BatchGenerateResponse:
        check(1 <= len(request.requests) <= MAX_BATCH, "requests", f"must have 1 to {MAX_BATCH} entries")
        concurrency_allowed = 0 <= request.max_concurrency <= MAX_CONCURRENCY
        check(concurrency_allowed, "max_concurrency", f"must be from 0 to {MAX_CONCURRENCY}")
        asked = [self._read_one(item) for item in request.requests]
        outcomes = iter(
            await self._completion.generate_batch(
                [item for item in asked if isinstance(item, GenerationRequest)],
                max_concurrency=request.max_concurrency or DEFAULT_CONCURRENCY,
                deadline=self._deadline(context),
            )
        )
        return llm_pb2.BatchGenerateResponse(
            results=[
                self._result(item, next(outcomes)) if isinstance(item, GenerationRequest) else failed_result(item)
                for item in asked
            ]
        )

    async def CountTokens(
        self, request: llm_pb2.CountTokensRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.CountTokensResponse:
        check_length(request.model, MAX_NAME_CHARACTERS, "model")
        model = request.model or self._completion.default_model
        total = await self._completion.count_tokens(model, read_prompt(request.prompt), self._deadline(context))
        return llm_pb2.CountTokensResponse(total_tokens=total, offline=self._offline)

    async def InvalidateCache(
        self, request: llm_pb2.InvalidateCacheRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.InvalidateCacheResponse:
        _check_operator()
        check_length(request.persona, MAX_NAME_CHARACTERS, "persona")
        check_length(request.model, MAX_NAME_CHARACTERS, "model")
        check_length(request.scope, MAX_SCOPE_CHARACTERS, "scope")
        scope = request.scope if request.HasField("scope") else None
        if not request.persona and not request.model and scope is None:
            raise InvalidField("persona", "must be set where neither model nor scope is")
        shared = await self._completion.invalidate(persona=request.persona, model=request.model, scope=scope)
        return llm_pb2.InvalidateCacheResponse(shared=shared)

    async def GetStatistics(
        self, request: llm_pb2.GetStatisticsRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.GetStatisticsResponse:
        _check_operator()
        return statistics.response(self._completion)

    def _read(self, request: llm_pb2.GenerateRequest | llm_pb2.StreamGenerateRequest) -> GenerationRequest:
        asked = read_request(request, self._completion.default_model, caller.current().principal)
        tracing.current_span().set(telemetry.GEN_AI_REQUEST_MODEL, asked.model)
        self._catalogue.check_usable(asked.model)
        return asked

    def _read_one(self, request: llm_pb2.GenerateRequest) -> GenerationRequest | IonError:
        try:
            return self._read(request)
        except IonError as error:
            return error

    def _result(self, asked: GenerationRequest, outcome: Completed | IonError) -> llm_pb2.BatchGenerateResult:
        if isinstance(outcome, IonError):
            return failed_result(outcome)
        note_tokens(_used_tokens(outcome))
        return llm_pb2.BatchGenerateResult(response=response_of(outcome, self._cost(asked, outcome)))

    def _cost(self, asked: GenerationRequest, completed: Completed) -> float | None:
        """None where the model has no price; nothing for the offline backend, which no one bills."""
        if completed.reply.offline:
            return None
        return self._catalogue.cost_usd(asked.model, completed.reply.usage, completed.lost_usage)

    def _deadline(self, context: grpc.aio.ServicerContext) -> Deadline:
        return Deadline.of(context, default_seconds=self._request_timeout_seconds).less_margin()


def _check_operator() -> None:
    """What concerns all callers is for the tier "admin" and for services; for everybody where authentication is off."""
    asking = caller.current()
    if asking.principal and asking.tier != caller.OPERATORS:
        raise IonError(Reason.REASON_PERMISSION_DENIED)


def _tell(completed: Completed) -> None:
    """The caller's span how its reply came about, and which call made it where that was another's."""
    span = tracing.current_span()
    if not span.is_recorded:
        return
    span.set(telemetry.CACHE_STATUS, completed.cache.value)
    span.set(telemetry.CACHE_TIER, completed.tier.value)
    if completed.cache in (CacheStatus.HIT, CacheStatus.STALE):
        span.set(telemetry.CACHE_AGE, completed.age_seconds)
    span.set(telemetry.ATTEMPTS, completed.attempts)
    span.set(telemetry.HEDGES, completed.hedges)
    span.set(telemetry.QUEUED, completed.queued_seconds)
    if completed.tier is not CacheTier.NONE:
        span.link(completed.traceparent)


def _used_tokens(completed: Completed) -> int:
    """What was generated for the call counts for its caller; what the cache had does not."""
    usage = completed.reply.usage
    return usage.input_tokens + usage.output_tokens + usage.thinking_tokens if completed.attempts else 0
