"""The one place that calls the LLM gateway."""

from __future__ import annotations

import asyncio

import grpc.aio
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, from_rpc
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from router_service.personas import Persona

_METHOD = "ion.llm.v1.LlmGatewayService/Generate"


class LlmClient:
    """Asks the LLM gateway for replies."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = llm_pb2_grpc.LlmGatewayServiceStub(channel)

    async def generate(self, request: llm_pb2.GenerateRequest, deadline: Deadline) -> llm_pb2.GenerateResponse:
        """One reply. Raises IonError; cancelling it cancels the call below."""
        remaining = deadline.remaining_seconds()
        if remaining <= 0:
            raise DeadlineExceeded
        with telemetry.span(_METHOD, SpanKind.CLIENT):
            call = self._stub.Generate(request, timeout=remaining, metadata=telemetry.outgoing_metadata())
            try:
                response: llm_pb2.GenerateResponse = await call
            except asyncio.CancelledError:
                call.cancel()
                raise
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error, unreachable=Reason.REASON_LLM_GATEWAY_UNAVAILABLE) from error
        return response


def generation_request(persona: Persona, instructions: str, message: str, language: str) -> llm_pb2.GenerateRequest:
    """Instructions and message, each in its own place."""
    return llm_pb2.GenerateRequest(
        prompt=llm_pb2.Prompt(
            system_instruction=instructions,
            contents=[llm_pb2.Content(role=llm_pb2.ROLE_USER, text=message)],
        ),
        parameters=llm_pb2.GenerationParameters(
            temperature=persona.prompt.temperature, max_output_tokens=persona.prompt.max_output_tokens
        ),
        persona=persona.name,
        language=language,
    )
