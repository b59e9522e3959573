"""The gRPC servicer of the persona router."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import grpc.aio

from chassis.deadline import Deadline
from chassis.errors import InvalidField, IonError, Violation, to_failure
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service import prompts, translation
from router_service.analysis import Analysis, Intent, Reader, Rhythm, Tone
from router_service.llm_client import LlmClient, generation_request
from router_service.persona_store import PersonaStore
from router_service.personas import PersonaNotFound, PersonaTable
from router_service.routing import Routing, Signals, choose, choose_all, parse_key, signals_of
from router_service.second_opinion import SecondOpinion, revised
from router_service.translation import Reading

MAX_MESSAGE_CHARACTERS: Final = 1000
MAX_ID_CHARACTERS: Final = 128
MAX_BATCH: Final = 1000
EVIDENCE: Final = 3  # words
# Of a batch, between two turns of the event loop: about 1 ms, whether they are many short messages or a few long ones.
MAX_TOGETHER: Final = 16
MAX_CHARACTERS_TOGETHER: Final = 4000
# Reasons that a reply may break off for besides its own: the call as a whole had to end.
_ENDS_OF_A_CALL: Final = (Reason.REASON_DEADLINE_EXCEEDED, Reason.REASON_CANCELLED)
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# The caller is to come again, which an apology would not say, and which costs less than an answer.
_NO_APOLOGY: Final = frozenset({Reason.REASON_OVERLOADED})
_log = logging.getLogger(__name__)


class PersonaRouterServicer(router_pb2_grpc.PersonaRouterServiceServicer):
    """Routes messages and lets the chosen persona answer. A call has the personas that were in use as it began."""

    def __init__(
        self,
        store: PersonaStore,
        reader: Reader,
        llm: LlmClient,
        second_opinion: SecondOpinion,
        *,
        request_timeout_seconds: float,
    ) -> None:
        self._store = store
        self._reader = reader
        self._llm = llm
        self._second_opinion = second_opinion
        self._request_timeout_seconds = request_timeout_seconds

    async def Route(
        self, request: router_pb2.RouteRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.RouteResponse:
        personas = self._store.table
        asked = read_request(request, personas)
        reading = (
            await self._read(asked.message, asked.previous, self._deadline(context), EVIDENCE)
            if asked.message
            else reading_of_key(asked)
        )
        return translation.route_response(choose(reading.signals, personas), reading, personas)

    async def BatchRoute(
        self, request: router_pb2.BatchRouteRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.BatchRouteResponse:
        personas = self._store.table
        if not 1 <= len(request.requests) <= MAX_BATCH:
            raise InvalidField("requests", f"must have 1 to {MAX_BATCH} entries")
        response = router_pb2.BatchRouteResponse()
        for chunk in chunks(request.requests):
            response.results.extend(self._route_all(chunk, personas))
            await asyncio.sleep(0)  # other calls have their turn
        return response

    async def Chat(self, request: router_pb2.ChatRequest, context: grpc.aio.ServicerContext) -> router_pb2.ChatResponse:
        deadline = self._deadline(context)
        turn = await self._begin(request, deadline)
        try:
            reply = await self._llm.generate(turn.asked, deadline.less_margin())
        except IonError as error:
            if error.reason in _NO_APOLOGY:
                raise
            _log.warning("fallback reply", extra={"reason": error.reason_name, "persona": turn.routing.persona})
            response = translation.apology(turn.routing, turn.reading, turn.personas, error)
        else:
            response = translation.answer(turn.routing, turn.reading, turn.personas, reply)
        turn.note_text()
        response.session_id = request.session_id
        response.timings.CopyFrom(turn.timings)
        return response

    async def ChatStream(
        self, request: router_pb2.ChatStreamRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[router_pb2.ChatStreamResponse, None]:
        deadline = self._deadline(context)
        turn = await self._begin(request, deadline)
        yield translation.routed(turn.routing, turn.reading, turn.personas)
        done, begun = router_pb2.ChatDone(), False
        try:
            async with aclosing(self._llm.stream(turn.asked, deadline.less_margin())) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        begun = True
                        turn.note_text()
                        yield router_pb2.ChatStreamResponse(text=piece)
                    else:
                        done.generation.CopyFrom(piece)
        except IonError as error:
            if not begun and error.reason in _NO_APOLOGY:
                raise
            what = "interrupted reply" if begun else "fallback reply"
            _log.warning(what, extra={"reason": error.reason_name, "persona": turn.routing.persona})
            if begun and error.reason not in _ENDS_OF_A_CALL:
                raise IonError(Reason.REASON_MODEL_INTERRUPTED) from error
            if begun:
                raise
            text, done = translation.streamed_apology(turn.routing, turn.reading, turn.personas, error)
            turn.note_text()
            yield router_pb2.ChatStreamResponse(text=text)
        done.session_id = request.session_id
        done.timings.CopyFrom(turn.timings)
        yield router_pb2.ChatStreamResponse(done=done)

    async def ListPersonas(
        self, request: router_pb2.ListPersonasRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.ListPersonasResponse:
        personas = self._store.table.personas
        response = router_pb2.ListPersonasResponse(count=len(personas), problem=self._store.problem)
        if not request.count_only:
            response.personas.extend(map(translation.persona, personas))
        return response

    async def GetPersona(
        self, request: router_pb2.GetPersonaRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.GetPersonaResponse:
        return router_pb2.GetPersonaResponse(persona=translation.persona(self._store.table.get(request.name)))

    def _deadline(self, context: grpc.aio.ServicerContext) -> Deadline:
        return Deadline.of(context, default_seconds=self._request_timeout_seconds)

    async def _begin(self, request: router_pb2.ChatRequest | router_pb2.ChatStreamRequest, deadline: Deadline) -> Turn:
        """Read the message and choose who answers. Raises IonError where there is nothing to answer."""
        personas = self._store.table
        message = checked_message(request.message)
        check_id("user_id", request.user_id)
        check_id("session_id", request.session_id)
        pinned = known_name(personas, "persona", request.persona)
        previous = known_name(personas, "previous_persona", request.previous_persona)

        clock = Stopwatch()
        reading = await self._read(message, previous, deadline)
        timings = router_pb2.Timings(analysis_micros=clock.lap_micros())
        routing = choose(reading.signals, personas, pinned=pinned)
        persona = personas.get(routing.persona)
        language = reading.analysis.language
        instructions = prompts.instructions(persona, routing.signals.key, language)
        asked = generation_request(persona, instructions, message, language)
        timings.routing_micros = clock.lap_micros()
        return Turn(personas, reading, routing, asked, timings, clock)

    async def _read(self, message: str, previous: str, deadline: Deadline, evidence: int = 0) -> Reading:
        """With a second opinion where one is needed and to be had, and so many words behind the tone."""
        analysis, read_by = self._reader.read(message, evidence), router_pb2.READ_BY_READER
        opinion = await self._second_opinion.on(message, analysis, deadline)
        if opinion is not None:
            analysis, read_by = revised(analysis, opinion, message, self._reader), router_pb2.READ_BY_MODEL
        return Reading(signals_of(analysis, message, previous=previous), analysis, read_by)

    def _route_all(
        self, requests: Sequence[router_pb2.RouteRequest], personas: PersonaTable
    ) -> list[router_pb2.BatchRouteResult]:
        asked = [_asked_or_error(request, personas) for request in requests]
        messages = [item.message for item in asked if isinstance(item, Asked) and item.message]
        analyses = iter(self._reader.read_all(messages))
        readings = [
            _reading_of_message(next(analyses), item) if item.message else reading_of_key(item)
            for item in asked
            if isinstance(item, Asked)
        ]
        routings = choose_all([reading.signals for reading in readings], personas) if readings else []
        responses = map(translation.route_response, routings, readings, [personas] * len(readings))
        return [
            router_pb2.BatchRouteResult(failure=to_failure(item))
            if isinstance(item, IonError)
            else router_pb2.BatchRouteResult(response=next(responses))
            for item in asked
        ]


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
    """A message that was read: who is to answer it, and what the model is asked. `clock` runs since then."""

    personas: PersonaTable
    reading: Reading
    routing: Routing
    asked: llm_pb2.GenerateRequest
    timings: router_pb2.Timings
    clock: Stopwatch

    def note_text(self) -> None:
        """The text, or the newest piece of it, is there."""
        self.timings.llm_micros = self.clock.elapsed_micros()


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be routed: a message, or where that is empty a key; and who answered last."""

    message: str
    key: str
    previous: str


def read_request(request: router_pb2.RouteRequest, personas: PersonaTable) -> Asked:
    """Raises IonError where there is nothing to route."""
    previous = known_name(personas, "previous_persona", request.previous_persona)
    given = request.WhichOneof("input")
    if given == "message":
        return Asked(checked_message(request.message), "", previous)
    if given == "resonance_key":
        check_id("resonance_key", request.resonance_key)
        return Asked("", request.resonance_key, previous)
    raise InvalidField("input", "must have a message or a resonance_key")


def _asked_or_error(request: router_pb2.RouteRequest, personas: PersonaTable) -> Asked | IonError:
    try:
        return read_request(request, personas)
    except IonError as error:
        return error


def checked_message(text: str) -> str:
    """The message without the white space around it. Raises IonError where it is not one to answer."""
    message = text.strip()
    if not message:
        raise _bad_message(Reason.REASON_MESSAGE_BLANK, "must not be blank")
    if len(message) > MAX_MESSAGE_CHARACTERS:
        limit = f"must have at most {MAX_MESSAGE_CHARACTERS} characters, and has {len(message)}"
        raise _bad_message(Reason.REASON_MESSAGE_TOO_LONG, limit)
    if _CONTROL.search(message):
        raise InvalidField("message", "must not contain control characters other than tab and line breaks")
    return message


def _bad_message(reason: Reason.ValueType, description: str) -> IonError:
    return IonError(reason, f"message: {description}", violations=[Violation("message", description)])


def check_id(field: str, value: str) -> None:
    """Raises InvalidField where an id is too long to keep."""
    if len(value) > MAX_ID_CHARACTERS:
        raise InvalidField(field, f"must have at most {MAX_ID_CHARACTERS} characters")


def known_name(personas: PersonaTable, field: str, name: str) -> str:
    """The persona's own name, or "" where none is given. Raises IonError, which names the field."""
    try:
        return personas.get(name).name if name else ""
    except PersonaNotFound as error:
        violations = [Violation(field, violation.description) for violation in error.violations]
        raise IonError(error.reason, error.message, violations=violations) from error


def chunks(requests: Sequence[router_pb2.RouteRequest]) -> Iterator[Sequence[router_pb2.RouteRequest]]:
    """The requests in order, as many at a time as fit between two turns of the event loop; at least one."""
    start, characters = 0, 0
    for at, request in enumerate(requests):
        length = min(len(request.message), MAX_MESSAGE_CHARACTERS)
        if at > start and (at - start == MAX_TOGETHER or characters + length > MAX_CHARACTERS_TOGETHER):
            yield requests[start:at]
            start, characters = at, 0
        characters += length
    yield requests[start:]


def _reading_of_message(analysis: Analysis, asked: Asked) -> Reading:
    signals = signals_of(analysis, asked.message, previous=asked.previous)
    return Reading(signals, analysis, router_pb2.READ_BY_READER)


def reading_of_key(asked: Asked) -> Reading:
    signals = parse_key(asked.key, previous=asked.previous)
    return Reading(signals, _analysis_of_key(signals))


def _analysis_of_key(signals: Signals) -> Analysis:
    """What a key says is certain, but for the parts that fell back."""
    certain = {part: float(part not in signals.defaulted_parts) for part in ("tone", "pace", "intent")}
    return Analysis(
        tone=Tone(signals.tone, certain["tone"], ""),
        intent=Intent(signals.intent, certain["intent"]),
        rhythm=Rhythm(signals.pace, 0.0, 0.0, certain["pace"]),
        topics=(),
        language="",
    )
