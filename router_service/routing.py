"""Chooses the persona: a weighted score over all personas, in one matrix product."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np

from router_service.analysis import INTENTS, PACES, TONES, TOPICS, Analysis
from router_service.personas import PersonaTable

# Tone, pace, intent.
WEIGHTS: Final = np.array([0.5, 0.3, 0.2])
# One step of 0.2 in a tone affinity: the subject decides between neighbours and never against a clear tone.
TIE_BREAK: Final = 0.1

_TONE_ROW: Final = {tone: row for row, tone in enumerate(TONES)}
_PACE_ROW: Final = {pace: row for row, pace in enumerate(PACES, start=len(TONES))}
_INTENT_ROW: Final = {intent: row for row, intent in enumerate(INTENTS, start=len(TONES) + len(PACES))}
_TOPIC_COLUMN: Final = {topic: column for column, topic in enumerate(TOPICS)}
_SAME: Final = 9  # decimals up to which two scores are the same


@dataclass(frozen=True, slots=True)
class Signals:
    """What a choice rests on. `seed` makes the draw between equals stable: the message or the key itself."""

    tone: str
    pace: str
    intent: str
    topics: tuple[tuple[str, float], ...]
    seed: str
    defaulted_parts: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.tone}-{self.pace}-{self.intent}"


@dataclass(frozen=True, slots=True)
class PersonaScore:
    """One persona's match: `score` is tone + pace + intent, 0 to 1; `tie_breaker` counts in the comparison alone."""

    persona: str
    score: float
    tone: float
    pace: float
    intent: float
    tie_breaker: float


@dataclass(frozen=True, slots=True)
class Routing:
    """The choice. `scores` is by name; `secondary` is "" where there is one persona only."""

    persona: str
    secondary: str
    confidence: float
    key: str
    scores: tuple[PersonaScore, ...]
    reasoning: str
    defaulted_parts: tuple[str, ...] = ()
    pinned: bool = False


def signals_of(analysis: Analysis, message: str) -> Signals:
    return Signals(analysis.tone.primary, analysis.rhythm.pace, analysis.intent.primary, analysis.topics, seed=message)


def parse_key(key: str) -> Signals:
    """`{tone}-{pace}-{intent}`. A part that is unknown or missing falls back alone, and is named."""
    parts = [part.strip() for part in key.lower().split("-", 2)] + ["", "", ""]
    known = (
        parts[0] if parts[0] in _TONE_ROW else "",
        parts[1] if parts[1] in _PACE_ROW else "",
        _known_intent(parts[2].replace("-", "_")),
    )
    defaulted = tuple(name for name, part in zip(("tone", "pace", "intent"), known, strict=True) if not part)
    tone, pace, intent = (part or default for part, default in zip(known, ("calm", "medium", "inquiry"), strict=True))
    return Signals(tone, pace, intent, (), seed=f"{tone}-{pace}-{intent}", defaulted_parts=defaulted)


def _known_intent(part: str) -> str:
    return part if part in _INTENT_ROW else ""


def choose(signals: Signals, table: PersonaTable, *, pinned: str = "") -> Routing:
    """The best match, or the persona named `pinned`."""
    return choose_all([signals], table, pinned=pinned)[0]


def choose_all(batch: Sequence[Signals], table: PersonaTable, *, pinned: str = "") -> list[Routing]:
    """One choice for each, all scores from one product."""
    rows = np.array([[_TONE_ROW[s.tone], _PACE_ROW[s.pace], _INTENT_ROW[s.intent]] for s in batch], dtype=np.intp)
    affinities = table.affinities[rows]  # (messages, 3, personas)
    scores = WEIGHTS @ affinities  # (messages, personas)
    parts = affinities * WEIGHTS[:, np.newaxis]
    tie_breakers = TIE_BREAK * (_shares(batch) @ table.fields)
    columns = (matrix.round(_SAME).tolist() for matrix in (scores, parts, tie_breakers))
    return [
        _decide(signals, _scores(table.names, *values), pinned)
        for signals, *values in zip(batch, *columns, strict=True)
    ]


def _shares(batch: Sequence[Signals]) -> np.ndarray:
    """Shape (messages, topics): how much each message is about each topic."""
    shares = np.zeros((len(batch), len(TOPICS)))
    for row, signals in enumerate(batch):
        for topic, share in signals.topics:
            shares[row, _TOPIC_COLUMN[topic]] = share
    return shares


def _scores(
    names: tuple[str, ...], scores: list[float], parts: list[list[float]], tie_breakers: list[float]
) -> tuple[PersonaScore, ...]:
    return tuple(
        PersonaScore(name, min(1.0, score), tone, pace, intent, tie_breaker)
        for name, score, tone, pace, intent, tie_breaker in zip(names, scores, *parts, tie_breakers, strict=True)
    )


def _decide(signals: Signals, scores: tuple[PersonaScore, ...], pinned: str) -> Routing:
    ranked = _ranked(scores, signals.seed)
    if pinned:
        ranked.sort(key=lambda score: score.persona != pinned)
    best = ranked[0]
    return Routing(
        persona=best.persona,
        secondary=ranked[1].persona if len(ranked) > 1 else "",
        confidence=best.score,
        key=signals.key,
        scores=scores,
        reasoning=_reasoning(signals, ranked, bool(pinned)),
        defaulted_parts=signals.defaulted_parts,
        pinned=bool(pinned),
    )


def _total(score: PersonaScore) -> float:
    return round(score.score + score.tie_breaker, _SAME)


def _ranked(scores: tuple[PersonaScore, ...], seed: str) -> list[PersonaScore]:
    """Best first; between equals a draw that is the same every time for the same text, and fair over many."""
    ranked = sorted(scores, key=_total, reverse=True)
    if all(_total(better) != _total(worse) for better, worse in pairwise(ranked)):
        return ranked
    return sorted(scores, key=lambda score: (-_total(score), _draw(seed, score.persona)))


def _draw(seed: str, persona: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{persona}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _reasoning(signals: Signals, ranked: list[PersonaScore], pinned: bool) -> str:
    best, *others = ranked
    parts = (
        f"Tone {signals.tone} ({best.tone:.2f}), pace {signals.pace} ({best.pace:.2f})"
        f" and intent {signals.intent} ({best.intent:.2f})"
    )
    sentences = [f"{parts} give {best.persona} {best.score:.2f}."]
    if pinned:
        sentences.append(f"{best.persona} was asked for.")
    elif others:
        sentences.append(_comparison(signals, best, others[0]))
    if signals.defaulted_parts:
        sentences.append(f"Unknown in the key, so taken as the default: {', '.join(signals.defaulted_parts)}.")
    return " ".join(sentences)


def _comparison(signals: Signals, best: PersonaScore, second: PersonaScore) -> str:
    if _total(best) == _total(second):
        return f"{second.persona} matches equally well; a stable draw decided."
    if best.score <= second.score and best.tie_breaker > second.tie_breaker:
        subject = " and ".join(topic for topic, _ in signals.topics)
        return f"{second.persona} is as close ({second.score:.2f}); what the message is about ({subject}) decided."
    return f"Next is {second.persona} with {second.score:.2f}."
