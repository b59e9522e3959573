"""The one place that calls the LLM gateway."""

from __future__ import annotations

import grpc.aio

from chassis.channel import invoke
from chassis.deadline import Deadline
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from router_service.personas import Persona

_GENERATE = "ion.llm.v1.LlmGatewayService/Generate"


class LlmClient:
    """Asks the LLM gateway for replies."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = llm_pb2_grpc.LlmGatewayServiceStub(channel)

    async def generate(self, request: llm_pb2.GenerateRequest, deadline: Deadline) -> llm_pb2.GenerateResponse:
        """One reply. Raises IonError; cancelling it cancels the call below."""
        unreachable = Reason.REASON_LLM_GATEWAY_UNAVAILABLE
        reply: llm_pb2.GenerateResponse = await invoke(
            self._stub.Generate, _GENERATE, request, deadline, unreachable=unreachable
        )
        return reply


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
