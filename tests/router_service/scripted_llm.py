"""An LLM gateway that does as it is told, for tests of what stands in front of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc.aio

from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc

GENERATION = llm_pb2.Generation(model="m", attempts=1, complete=True)
# What a stream does, one after the other: say a text, end with a Generation, wait for an event, fail for a reason.
Step = str | llm_pb2.Generation | asyncio.Event | Reason.ValueType
Request = llm_pb2.GenerateRequest | llm_pb2.StreamGenerateRequest


class ScriptedLlm(llm_pb2_grpc.LlmGatewayServiceServicer):
    """Answers with `text`, or fails for `reason`, or waits; streams follow `script`."""

    def __init__(self) -> None:
        self.text = "reply"
        self.reason: Reason.ValueType | None = None
        self.requests: list[Request] = []
        self.time_remaining: float | None = None
        self.wait = False
        self.script: list[Step] = ["re", "ply", GENERATION]
        self.asked = asyncio.Event()
        self.finished, self.cancelled = asyncio.Event(), asyncio.Event()  # a stream, by itself or by its caller

    async def Generate(
        self, request: llm_pb2.GenerateRequest, context: grpc.aio.ServicerContext
    ) -> llm_pb2.GenerateResponse:
        self._note(request, context)
        if self.wait:
            await asyncio.Event().wait()
        if self.reason is not None:
            raise IonError(self.reason)
        return llm_pb2.GenerateResponse(text=self.text, generation=GENERATION)

    async def StreamGenerate(
        self, request: llm_pb2.StreamGenerateRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[llm_pb2.StreamGenerateResponse, None]:
        self._note(request, context)
        try:
            for step in self.script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield event_of(step)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise
        self.finished.set()

    def _note(self, request: Request, context: grpc.aio.ServicerContext) -> None:
        self.requests.append(request)
        self.asked.set()
        self.time_remaining = context.time_remaining()


def event_of(step: str | llm_pb2.Generation | Reason.ValueType) -> llm_pb2.StreamGenerateResponse:
    if isinstance(step, str):
        return llm_pb2.StreamGenerateResponse(text=step)
    if isinstance(step, llm_pb2.Generation):
        return llm_pb2.StreamGenerateResponse(generation=step)
    raise IonError(step)
