"""What the router tells of its choices: counted, and on the span of the call where that is recorded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

from chassis import telemetry
from chassis.errors import IonError
from chassis.observability import metrics, tracing
from ion.router.v1 import router_pb2
from router_service.reading import Reading
from router_service.routing import Routing

MAX_NAMED: Final = 100  # personas that have counts of their own
OTHERS: Final = "(other)"
FOREMOST: Final = 10  # personas whose scores a span has
_DIGITS: Final = 16
_READ_BY: Final = {
    router_pb2.READ_BY_UNSPECIFIED: "key",
    router_pb2.READ_BY_READER: "reader",
    router_pb2.READ_BY_MODEL: "model",
}
_HISTORY: Final = {
    router_pb2.HISTORY_STATUS_STORED: "stored",
    router_pb2.HISTORY_STATUS_UNAVAILABLE: "unavailable",
    router_pb2.HISTORY_STATUS_SKIPPED: "skipped",
}


class Decisions:
    """Counts them by persona, tone and intent: half a µs each, where a counter of the SDK takes 12."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, str], int] = {}
        self._named: set[str] = set()

    def note(self, routing: Routing, reading: Reading) -> None:
        """That of a call of its own."""
        self.count(routing)
        span = tracing.current_span()
        if span.is_recorded:
            _tell(span, routing, reading)

    def count(self, routing: Routing) -> None:
        decision = self._name(routing.persona), routing.signals.tone, routing.signals.intent
        self._counts[decision] = self._counts.get(decision, 0) + 1

    def counted(self) -> Iterable[metrics.Observed]:
        """For telemetry.ROUTING_DECISIONS."""
        return [
            (number, {telemetry.PERSONA: persona, telemetry.TONE: tone, telemetry.INTENT: intent})
            for (persona, tone, intent), number in self._counts.copy().items()
        ]

    def _name(self, persona: str) -> str:
        """Personas come from files that change while the process runs."""
        if persona not in self._named:
            if len(self._named) == MAX_NAMED:
                return OTHERS
            self._named.add(persona)
        return persona


def _tell(span: tracing.Span, routing: Routing, reading: Reading) -> None:
    signals, foremost = routing.signals, routing.foremost(FOREMOST)
    told: dict[str, tracing.Value] = {
        telemetry.RESONANCE_KEY: signals.key,
        telemetry.TONE: signals.tone,
        telemetry.PACE: signals.pace,
        telemetry.INTENT: signals.intent,
        telemetry.READ_BY: _READ_BY[reading.read_by],
        telemetry.PERSONA: routing.persona,
        telemetry.ROUTING_SCORE: routing.best.score,
        telemetry.ROUTING_MARGIN: routing.margin,
        telemetry.ROUTING_PERSONAS: [score.persona for score in foremost],
        telemetry.ROUTING_SCORES: [score.score for score in foremost],
        telemetry.ROUTING_PINNED: routing.pinned,
    }
    if routing.secondary:
        told[telemetry.SECONDARY_PERSONA] = routing.secondary
    if routing.decided_by:
        told[telemetry.ROUTING_DECIDED_BY] = routing.decided_by
    for key, value in told.items():
        span.set(key, value)


def note_session(owner: str, session_id: str) -> None:
    span = tracing.current_span()
    if span.is_recorded:
        digest = hashlib.sha256(f"{owner}{session_id}".encode("utf-8", "surrogatepass")).hexdigest()
        span.set(telemetry.GEN_AI_CONVERSATION, digest[:_DIGITS])


def note_apology(error: IonError) -> None:
    tracing.current_span().set(telemetry.FALLBACK, True)
    metrics.count(telemetry.CHAT_FALLBACKS, {telemetry.ERROR_TYPE: error.reason_name})


def note_history(status: router_pb2.HistoryStatus.ValueType) -> None:
    tracing.current_span().set(telemetry.HISTORY, _HISTORY[status])
