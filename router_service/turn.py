"""One message on its way to an answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from router_service import prompts
from router_service.conversations.conversation import Exchange
from router_service.conversations.memory import Recalled
from router_service.llm_client import generation_request
from router_service.personas import Persona, PersonaTable
from router_service.reading import Reading
from router_service.requests import AskedToChat
from router_service.routing import Routing


class Stopwatch:
    """Microseconds between laps."""

    def __init__(self) -> None:
        self._last = time.perf_counter_ns()

    def elapsed_micros(self) -> int:
        return (time.perf_counter_ns() - self._last) // 1000

    def lap_micros(self) -> int:
        last, self._last = self._last, time.perf_counter_ns()
        return (self._last - last) // 1000


@dataclass(frozen=True, slots=True)
class Turn:
    """A message that was read: who is to answer it, and what the model is asked. `session` is None where nothing is
    kept; `clock` runs since all this was done."""

    personas: PersonaTable
    message: str
    reading: Reading
    routing: Routing
    prompt: llm_pb2.GenerateRequest
    session: Recalled | None
    timings: router_pb2.Timings
    clock: Stopwatch

    def note_text(self) -> None:
        """The text, or the newest piece of it, is there."""
        self.timings.llm_micros = self.clock.elapsed_micros()

    def exchange(self, reply: str, model: str) -> Exchange:
        routing = self.routing
        return Exchange(self.message, reply, routing.persona, routing.signals.key, routing.best.score, model)


def prompt_of(
    asked: AskedToChat, persona: Persona, reading: Reading, earlier: Sequence[llm_pb2.Content], scope: str
) -> llm_pb2.GenerateRequest:
    """What the model is asked, as the persona, with what the caller asks of it besides."""
    request, language = asked.request, reading.analysis.language
    instructions = prompts.instructions(persona, reading.signals.key, language, request.instructions)
    text = request.contents[-1].text if request.contents else asked.message
    prompt = generation_request(persona, instructions, text, language, earlier=earlier, scope=scope)
    if request.HasField("parameters"):
        prompt.parameters.MergeFrom(request.parameters)
    if request.HasField("cache_control"):
        prompt.cache_control.CopyFrom(request.cache_control)
    return prompt
