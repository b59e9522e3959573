"""The one place that calls the LLM gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import grpc.aio

from chassis.caller import StreamedTokens, note_tokens
from chassis.channel import invoke, invoke_stream
from chassis.deadline import Deadline
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from router_service.personas import Persona

_GENERATE = "ion.llm.v1.LlmGatewayService/Generate"
_STREAM_GENERATE = "ion.llm.v1.LlmGatewayService/StreamGenerate"
_UNREACHABLE = Reason.REASON_LLM_GATEWAY_UNAVAILABLE


class LlmClient:
    """Asks the LLM gateway for replies. `target` is what the channel was opened for."""

    def __init__(self, channel: grpc.aio.Channel, *, target: str = "") -> None:
        self._stub = llm_pb2_grpc.LlmGatewayServiceStub(channel)
        self._target = target

    async def generate(self, request: llm_pb2.GenerateRequest, deadline: Deadline) -> llm_pb2.GenerateResponse:
        """One reply. Raises IonError; cancelling it cancels the call below."""
        reply: llm_pb2.GenerateResponse = await invoke(
            self._stub.Generate, _GENERATE, request, deadline, unreachable=_UNREACHABLE, target=self._target
        )
        note_tokens(_used_tokens(reply.generation))
        return reply

    async def stream(
        self, request: llm_pb2.GenerateRequest, deadline: Deadline
    ) -> AsyncGenerator[str | llm_pb2.Generation, None]:
        """One reply: its text as it comes, then how it came about; always in that order, and that only once the stream
        has ended well. Raises IonError, MODEL_INTERRUPTED where the stream ends without it. Closing or cancelling it
        cancels the call below."""
        generation: llm_pb2.Generation | None = None
        asked = _as_stream(request)
        calls = invoke_stream(
            self._stub.StreamGenerate,
            _STREAM_GENERATE,
            asked,
            deadline,
            unreachable=_UNREACHABLE,
            target=self._target,
        )
        with StreamedTokens() as tokens:
            async with aclosing(calls) as events:
                async for event in events:
                    if event.WhichOneof("event") == "text":
                        tokens.passed_on(event.text)
                        yield event.text
                    elif event.HasField("generation"):
                        generation = event.generation
                        tokens.told(_used_tokens(generation))
        if generation is None:
            raise IonError(Reason.REASON_MODEL_INTERRUPTED)
        yield generation


def _used_tokens(generation: llm_pb2.Generation) -> int:
    """What was generated for the call counts for its caller; what the cache had does not."""
    usage = generation.usage
    return usage.input_tokens + usage.output_tokens + usage.thinking_tokens if generation.attempts else 0


def _as_stream(request: llm_pb2.GenerateRequest) -> llm_pb2.StreamGenerateRequest:
    """Both have the same fields under the same numbers."""
    return llm_pb2.StreamGenerateRequest.FromString(request.SerializeToString())


def generation_request(
    persona: Persona,
    instructions: str,
    message: str,
    language: str,
    *,
    earlier: Sequence[llm_pb2.Content] = (),
    scope: str = "",
) -> llm_pb2.GenerateRequest:
    """Instructions, what was said earlier (oldest first) and the message, each in its own place."""
    return llm_pb2.GenerateRequest(
        prompt=llm_pb2.Prompt(
            system_instruction=instructions,
            contents=[*earlier, llm_pb2.Content(role=llm_pb2.ROLE_USER, text=message)],
        ),
        parameters=llm_pb2.GenerationParameters(
            temperature=persona.prompt.temperature, max_output_tokens=persona.prompt.max_output_tokens
        ),
        persona=persona.name,
        language=language,
        scope=scope,
    )
