"""The gRPC servicer of the persona router: wire to domain and back."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Sequence
from typing import Final

import grpc.aio

from chassis.deadline import Deadline
from chassis.errors import InvalidField, IonError, Violation, reason_name, to_failure
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service import prompts
from router_service.analysis import Analysis, Intent, Rhythm, Tone, read
from router_service.llm_client import LlmClient, generation_request
from router_service.personas import Persona, PersonaTable
from router_service.routing import Routing, Signals, choose, choose_all, parse_key, signals_of

MAX_MESSAGE_CHARACTERS: Final = 1000
MAX_ID_CHARACTERS: Final = 128
MAX_BATCH: Final = 1000
FALLBACK_KEY: Final = "error-fallback-statement"
_READ_AT_A_TIME: Final = 32  # messages of a batch between two turns of the event loop: about 2 ms
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_log = logging.getLogger(__name__)

Input = tuple[Signals, Analysis]


class PersonaRouterServicer(router_pb2_grpc.PersonaRouterServiceServicer):
    """Routes messages and lets the chosen persona answer."""

    def __init__(self, personas: PersonaTable, llm: LlmClient, *, request_timeout_seconds: float) -> None:
        self._personas = personas
        self._llm = llm
        self._request_timeout_seconds = request_timeout_seconds

    async def Route(
        self, request: router_pb2.RouteRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.RouteResponse:
        signals, analysis = read_input(request)
        return route_response(choose(signals, self._personas), analysis)

    async def BatchRoute(
        self, request: router_pb2.BatchRouteRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.BatchRouteResponse:
        if not 1 <= len(request.requests) <= MAX_BATCH:
            raise InvalidField("requests", f"must have 1 to {MAX_BATCH} entries")
        inputs = await _read_all(request.requests)
        readable = [item for item in inputs if not isinstance(item, IonError)]
        routings = iter(choose_all([signals for signals, _ in readable], self._personas) if readable else ())
        return router_pb2.BatchRouteResponse(
            results=[
                router_pb2.BatchRouteResult(failure=to_failure(item))
                if isinstance(item, IonError)
                else router_pb2.BatchRouteResult(response=route_response(next(routings), item[1]))
                for item in inputs
            ]
        )

    async def Chat(self, request: router_pb2.ChatRequest, context: grpc.aio.ServicerContext) -> router_pb2.ChatResponse:
        deadline = Deadline.of(context, default_seconds=self._request_timeout_seconds)
        message = checked_message(request.message)
        check_id("user_id", request.user_id)
        check_id("session_id", request.session_id)
        pinned = self._personas.get(request.persona).name if request.persona else ""

        clock = Stopwatch()
        analysis = read(message)
        analysis_micros = clock.lap_micros()
        routing = choose(signals_of(analysis, message), self._personas, pinned=pinned)
        persona = self._personas.get(routing.persona)
        instructions = prompts.instructions(persona, routing.key, analysis.language)
        routing_micros = clock.lap_micros()
        try:
            reply = await self._llm.generate(
                generation_request(persona, instructions, message, analysis.language), deadline.less_margin()
            )
        except IonError as error:
            response = self._fallback(routing, analysis, error)
        else:
            response = _answer(routing, analysis, reply)
        response.session_id = request.session_id
        response.timings.analysis_micros = analysis_micros
        response.timings.routing_micros = routing_micros
        response.timings.llm_micros = clock.lap_micros()
        return response

    async def ListPersonas(
        self, request: router_pb2.ListPersonasRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.ListPersonasResponse:
        return router_pb2.ListPersonasResponse(personas=[_persona(item) for item in self._personas.personas])

    async def GetPersona(
        self, request: router_pb2.GetPersonaRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.GetPersonaResponse:
        return router_pb2.GetPersonaResponse(persona=_persona(self._personas.get(request.name)))

    def _fallback(self, routing: Routing, analysis: Analysis, error: IonError) -> router_pb2.ChatResponse:
        """An apology in the sender's language, beside the reading and the scores as they were."""
        _log.warning("fallback reply", extra={"reason": reason_name(error.reason), "persona": routing.persona})
        apologist = self._personas.apologist
        apology = (apologist.apology or {})["ko" if analysis.language == "ko" else "en"]
        response = router_pb2.ChatResponse(
            content=apology,
            routing=_routing(routing),
            analysis=_analysis(analysis),
            fallback=True,
            failure=to_failure(error),
        )
        response.routing.persona = apologist.name
        response.routing.confidence = 0.0
        response.routing.resonance_key = FALLBACK_KEY
        response.routing.reasoning = (
            f"{routing.persona} was chosen, but the model could not answer. {routing.reasoning}"
        )
        return response


class Stopwatch:
    """Microseconds between laps."""

    def __init__(self) -> None:
        self._last = time.perf_counter_ns()

    def lap_micros(self) -> int:
        last, self._last = self._last, time.perf_counter_ns()
        return (self._last - last) // 1000


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


def read_input(request: router_pb2.RouteRequest) -> Input:
    """What a message says, or a key. Raises IonError where neither is usable."""
    given = request.WhichOneof("input")
    if given == "message":
        message = checked_message(request.message)
        analysis = read(message)
        return signals_of(analysis, message), analysis
    if given == "resonance_key":
        check_id("resonance_key", request.resonance_key)
        signals = parse_key(request.resonance_key)
        return signals, _analysis_of_key(signals)
    raise InvalidField("input", "must have a message or a resonance_key")


async def _read_all(requests: Sequence[router_pb2.RouteRequest]) -> list[Input | IonError]:
    inputs: list[Input | IonError] = []
    for number, request in enumerate(requests):
        if number % _READ_AT_A_TIME == _READ_AT_A_TIME - 1:
            await asyncio.sleep(0)  # other calls have their turn
        try:
            inputs.append(read_input(request))
        except IonError as error:
            inputs.append(error)
    return inputs


def _analysis_of_key(signals: Signals) -> Analysis:
    """What a key says is certain, but for the parts that fell back."""
    certain = {part: float(part not in signals.defaulted_parts) for part in ("tone", "intent")}
    return Analysis(
        tone=Tone(signals.tone, certain["tone"], ""),
        intent=Intent(signals.intent, certain["intent"]),
        rhythm=Rhythm(signals.pace, 0.0, 0.0),
        topics=(),
        language="",
    )


def _answer(routing: Routing, analysis: Analysis, reply: llm_pb2.GenerateResponse) -> router_pb2.ChatResponse:
    return router_pb2.ChatResponse(
        content=reply.text, routing=_routing(routing), analysis=_analysis(analysis), generation=reply.generation
    )


def route_response(routing: Routing, analysis: Analysis) -> router_pb2.RouteResponse:
    return router_pb2.RouteResponse(routing=_routing(routing), analysis=_analysis(analysis))


def _routing(routing: Routing) -> router_pb2.Routing:
    return router_pb2.Routing(
        persona=routing.persona,
        secondary_persona=routing.secondary,
        confidence=routing.confidence,
        resonance_key=routing.key,
        scores=[
            router_pb2.PersonaScore(
                persona=score.persona,
                score=score.score,
                tone=score.tone,
                pace=score.pace,
                intent=score.intent,
                tie_breaker=score.tie_breaker,
            )
            for score in routing.scores
        ],
        reasoning=routing.reasoning,
        defaulted_parts=routing.defaulted_parts,
        pinned=routing.pinned,
    )


def _analysis(analysis: Analysis) -> router_pb2.Analysis:
    tone, intent, rhythm = analysis.tone, analysis.intent, analysis.rhythm
    return router_pb2.Analysis(
        tone=router_pb2.Tone(primary=tone.primary, confidence=tone.confidence, secondary=tone.secondary),
        intent=router_pb2.Intent(primary=intent.primary, confidence=intent.confidence),
        rhythm=router_pb2.Rhythm(
            pace=rhythm.pace, avg_length=rhythm.avg_length, punctuation_density=rhythm.punctuation_density
        ),
        topics=[topic for topic, _ in analysis.topics],
        language=analysis.language,
    )


def _persona(persona: Persona) -> router_pb2.Persona:
    return router_pb2.Persona(
        name=persona.name,
        korean_name=persona.korean_name,
        role=persona.role,
        symbol=persona.symbol,
        traits=persona.traits,
        strengths=persona.strengths,
        preferred_tones=persona.preferred_tones,
        prompt_style=persona.prompt_style,
        topics=persona.topics,
    )
