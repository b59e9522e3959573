"""The gRPC servicer of the persona router."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import grpc.aio

from chassis import caller
from chassis.deadline import Deadline
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from router_service import prompts, translation
from router_service.batch import route_batch
from router_service.conversations.conversation import Conversations
from router_service.conversations.memory import Memory, Recalled
from router_service.conversations.owner import current_owner
from router_service.decisions import Decisions, note_apology, note_history, note_session
from router_service.llm_client import LlmClient
from router_service.persona_store import PersonaStore
from router_service.personas import Persona, PersonaNotFound, PersonaTable
from router_service.reading import Reading, Readings, reading_of_key
from router_service.requests import AskedToChat, ChatAsked, read_chat, read_route
from router_service.routing import choose
from router_service.sessions import SessionsServicer
from router_service.turn import Stopwatch, Turn, prompt_of

EVIDENCE: Final = 3  # words
# Reasons that a reply may break off for besides its own: the call as a whole had to end.
_ENDS_OF_A_CALL: Final = (Reason.REASON_DEADLINE_EXCEEDED, Reason.REASON_CANCELLED)
# The caller is to come again, which an apology would not say, and which costs less than an answer.
_NO_APOLOGY: Final = frozenset({Reason.REASON_OVERLOADED})
_log = logging.getLogger(__name__)


class PersonaRouterServicer(SessionsServicer):
    """Routes messages and lets the chosen persona answer. A call has the personas that were in use as it began."""

    def __init__(
        self,
        store: PersonaStore,
        readings: Readings,
        llm: LlmClient,
        conversations: Conversations,
        memory: Memory,
        decisions: Decisions,
        *,
        told_turns: int,
        request_timeout_seconds: float,
    ) -> None:
        super().__init__(conversations, request_timeout_seconds=request_timeout_seconds)
        self._store = store
        self._readings = readings
        self._llm = llm
        self._memory = memory
        self._decisions = decisions
        self._told_turns = told_turns

    async def Route(
        self, request: router_pb2.RouteRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.RouteResponse:
        personas = self._store.table
        asked = read_route(request, personas)
        reading = (
            await self._readings.of_message(asked.message, asked.previous, self._deadline(context), EVIDENCE)
            if asked.message
            else reading_of_key(asked.key, previous=asked.previous)
        )
        routing = choose(reading.signals, personas)
        self._decisions.note(routing, reading)
        return translation.route_response(routing, reading, personas)

    async def BatchRoute(
        self, request: router_pb2.BatchRouteRequest, context: grpc.aio.ServicerContext
    ) -> router_pb2.BatchRouteResponse:
        return await route_batch(request.requests, self._store.table, self._readings.reader, self._decisions)

    async def Chat(self, request: router_pb2.ChatRequest, context: grpc.aio.ServicerContext) -> router_pb2.ChatResponse:
        deadline = self._deadline(context)
        turn = await self._begin(request, deadline)
        try:
            reply = await self._llm.generate(turn.prompt, deadline.less_margin())
        except IonError as error:
            if error.reason in _NO_APOLOGY or request.no_apology:
                raise
            _log.warning("fallback reply", extra={"reason": error.reason_name, "persona": turn.routing.persona})
            note_apology(error)
            turn.note_text()
            response = translation.apology(turn.routing, turn.reading, turn.personas, error)
        else:
            turn.note_text()
            response = translation.answer(turn.routing, turn.reading, turn.personas, reply)
        if turn.session:
            await self._keep(turn, turn.session, response.content, response, deadline)
        response.timings.CopyFrom(turn.timings)
        return response

    async def ChatStream(
        self, request: router_pb2.ChatStreamRequest, context: grpc.aio.ServicerContext
    ) -> AsyncGenerator[router_pb2.ChatStreamResponse, None]:
        deadline = self._deadline(context)
        turn = await self._begin(request, deadline)
        yield translation.routed(turn.routing, turn.reading, turn.personas)
        done, texts = router_pb2.ChatDone(), list[str]()
        try:
            async with aclosing(self._llm.stream(turn.prompt, deadline.less_margin())) as pieces:
                async for piece in pieces:
                    if isinstance(piece, str):
                        texts.append(piece)
                        turn.note_text()
                        yield router_pb2.ChatStreamResponse(text=piece)
                    else:
                        done.generation.CopyFrom(piece)
        except IonError as error:
            if not texts and (error.reason in _NO_APOLOGY or request.no_apology):
                raise
            what = "interrupted reply" if texts else "fallback reply"
            _log.warning(what, extra={"reason": error.reason_name, "persona": turn.routing.persona})
            if texts and error.reason not in _ENDS_OF_A_CALL:
                raise IonError(Reason.REASON_MODEL_INTERRUPTED) from error
            if texts:
                raise
            note_apology(error)
            text, done = translation.streamed_apology(turn.routing, turn.reading, turn.personas, error)
            turn.note_text()
            yield router_pb2.ChatStreamResponse(text=text)
        if turn.session:
            await self._keep(turn, turn.session, "".join(texts), done, deadline)
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

    async def _begin(self, request: ChatAsked, deadline: Deadline) -> Turn:
        """Recall the session, read the message and choose who answers. Raises IonError where there is nothing to
        answer."""
        personas = self._store.table
        asked = read_chat(request, personas)
        clock, timings, session = Stopwatch(), router_pb2.Timings(), None
        if request.session_id:
            owner = current_owner(request.user_id)
            note_session(owner, request.session_id)
            session = await self._memory.recall(owner, request.session_id, deadline)
            timings.history_micros = clock.lap_micros()
        previous = asked.previous or _who_answered(session, personas)
        reading = await self._readings.of_message(asked.message, previous, deadline)
        timings.analysis_micros = clock.lap_micros()
        routing = choose(reading.signals, personas, pinned=asked.pinned)
        self._decisions.note(routing, reading)
        prompt = self._prompt(asked, session, personas.get(routing.persona), reading)
        timings.routing_micros = clock.lap_micros()
        return Turn(personas, asked.message, reading, routing, prompt, session, timings, clock)

    def _prompt(
        self, asked: AskedToChat, session: Recalled | None, persona: Persona, reading: Reading
    ) -> llm_pb2.GenerateRequest:
        """In the cache, what rests on earlier turns is their owner's alone; what does not is the whole principal's."""
        if session is not None:
            earlier: Sequence[llm_pb2.Content] = prompts.history(session.past, self._told_turns)
        else:
            earlier = asked.request.contents[:-1]
        scope = current_owner(asked.request.user_id) if earlier else caller.current().principal
        return prompt_of(asked, persona, reading, earlier, scope)

    async def _keep(
        self,
        turn: Turn,
        session: Recalled,
        reply: str,
        answer: router_pb2.ChatResponse | router_pb2.ChatDone,
        deadline: Deadline,
    ) -> None:
        """Store what was said and answered, unless the answer is an apology; the answer says what became of it."""
        clock = Stopwatch()
        answer.session_id = session.session_id
        if answer.fallback:
            answer.history = router_pb2.HISTORY_STATUS_SKIPPED
        else:
            exchange = turn.exchange(reply, answer.generation.model)
            answer.history = await self._memory.keep(session, exchange, deadline)
        note_history(answer.history)
        turn.timings.history_micros += clock.lap_micros()


def _who_answered(session: Recalled | None, personas: PersonaTable) -> str:
    """Last in the session; "" for nobody, and for a persona that there is no more."""
    if session is None or not session.past.persona:
        return ""
    try:
        return personas.get(session.past.persona).name
    except PersonaNotFound:
        return ""
