"""Domain to protobuf."""

from __future__ import annotations

from collections.abc import Sequence

from chassis.errors import IonError, to_failure
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from router_service import reasoning
from router_service.analysis import Evidence
from router_service.personas import Persona, PersonaTable
from router_service.reading import Reading
from router_service.routing import Routing

FALLBACK_KEY = "error-fallback-statement"


def route_response(routing: Routing, reading: Reading, table: PersonaTable) -> router_pb2.RouteResponse:
    return router_pb2.RouteResponse(routing=_routing(routing, table), analysis=_analysis(reading))


def answer(
    routing: Routing, reading: Reading, table: PersonaTable, reply: llm_pb2.GenerateResponse
) -> router_pb2.ChatResponse:
    return router_pb2.ChatResponse(
        content=reply.text,
        routing=_routing(routing, table),
        analysis=_analysis(reading),
        generation=reply.generation,
    )


def apology(routing: Routing, reading: Reading, table: PersonaTable, error: IonError) -> router_pb2.ChatResponse:
    """In the sender's language, beside the reading and the scores as they were."""
    return router_pb2.ChatResponse(
        content=_apology_text(reading, table),
        routing=_apologists_routing(routing, table),
        analysis=_analysis(reading),
        fallback=True,
        failure=to_failure(error),
    )


def routed(routing: Routing, reading: Reading, table: PersonaTable) -> router_pb2.ChatStreamResponse:
    """The first event of a streamed answer."""
    choice = router_pb2.Routed(routing=_routing(routing, table), analysis=_analysis(reading))
    return router_pb2.ChatStreamResponse(routed=choice)


def streamed_apology(
    routing: Routing, reading: Reading, table: PersonaTable, error: IonError
) -> tuple[str, router_pb2.ChatDone]:
    """What `apology` says, as a streamed answer's text and end."""
    done = router_pb2.ChatDone(fallback=True, failure=to_failure(error), routing=_apologists_routing(routing, table))
    return _apology_text(reading, table), done


def _apology_text(reading: Reading, table: PersonaTable) -> str:
    return (table.apologist.apology or {})["ko" if reading.analysis.language == "ko" else "en"]


def _apologists_routing(routing: Routing, table: PersonaTable) -> router_pb2.Routing:
    apologists = _routing(routing, table, unanswered=True)
    apologists.persona = table.apologist.name
    apologists.confidence = 0.0
    apologists.resonance_key = FALLBACK_KEY
    return apologists


def persona(given: Persona) -> router_pb2.Persona:
    return router_pb2.Persona(
        name=given.name,
        korean_name=given.korean_name,
        role=given.role,
        symbol=given.symbol,
        traits=given.traits,
        strengths=given.strengths,
        preferred_tones=given.preferred_tones,
        prompt_style=given.prompt_style,
        topics=given.topics,
    )


def _routing(routing: Routing, table: PersonaTable, *, unanswered: bool = False) -> router_pb2.Routing:
    return router_pb2.Routing(
        persona=routing.persona,
        secondary_persona=routing.secondary,
        confidence=routing.best.score,
        resonance_key=routing.signals.key,
        scores=[
            router_pb2.PersonaScore(
                persona=score.persona,
                score=score.score,
                tone=score.tone,
                pace=score.pace,
                intent=score.intent,
                tie_breaker=score.tie_breaker,
                session_bonus=score.session_bonus,
            )
            for score in routing.scores
        ],
        reasoning=reasoning.sentence(routing, table, unanswered=unanswered),
        defaulted_parts=routing.signals.defaulted_parts,
        pinned=routing.pinned,
        margin=routing.margin,
    )


def _analysis(reading: Reading) -> router_pb2.Analysis:
    analysis = reading.analysis
    tone, intent, rhythm = analysis.tone, analysis.intent, analysis.rhythm
    return router_pb2.Analysis(
        tone=router_pb2.Tone(
            primary=tone.primary,
            confidence=tone.confidence,
            secondary=tone.secondary,
            secondary_confidence=tone.secondary_confidence,
            abstained=tone.abstained,
        ),
        intent=router_pb2.Intent(primary=intent.primary, confidence=intent.confidence),
        rhythm=router_pb2.Rhythm(
            pace=rhythm.pace,
            avg_length=rhythm.avg_length,
            punctuation_density=rhythm.punctuation_density,
            confidence=rhythm.confidence,
        ),
        topics=[topic for topic, _ in analysis.topics],
        topic_probabilities=[probability for _, probability in analysis.topics],
        language=analysis.language,
        evidence=() if tone.abstained else _evidence(analysis.evidence),
        read_by=reading.read_by,
        characters_read=reading.characters_read,
    )


def _evidence(words: Sequence[Evidence]) -> list[router_pb2.Evidence]:
    return [router_pb2.Evidence(text=word.text, weight=word.weight) for word in words]
