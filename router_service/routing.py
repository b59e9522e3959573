"""Chooses the persona: a weighted score over all personas, in one matrix product."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

import numpy as np

from router_service.analysis import INTENTS, PACES, TONES, TOPICS, Analysis
from router_service.personas import PersonaTable

# Tone, pace, intent.
WEIGHTS: Final = np.array([0.5, 0.3, 0.2])
# One step of 0.2 in a tone affinity: the subject decides between neighbours and never against a clear tone.
TIE_BREAK: Final = 0.1
# Below one step of 0.1 in a tone affinity, which is 0.05: whoever answered last stays among near-equals, and no more.
SESSION_BONUS: Final = 0.03

_TONE_ROW: Final = {tone: row for row, tone in enumerate(TONES)}
_PACE_ROW: Final = {pace: row for row, pace in enumerate(PACES, start=len(TONES))}
_INTENT_ROW: Final = {intent: row for row, intent in enumerate(INTENTS, start=len(TONES) + len(PACES))}
_TOPIC_COLUMN: Final = {topic: column for column, topic in enumerate(TOPICS)}
MAX_TOLD: Final = 100  # personas whose scores are told one by one
_SAME: Final = 9  # decimals up to which two scores are the same
_total: Final = attrgetter("total")


@dataclass(frozen=True, slots=True)
class Signals:
    """What a choice rests on. `seed` makes the draw between equals stable: the message or the key itself. `previous` is
    the name of the persona that answered last, and `language` "" for a key."""

    tone: str
    pace: str
    intent: str
    topics: tuple[tuple[str, float], ...]
    seed: str
    defaulted_parts: tuple[str, ...] = ()
    previous: str = ""
    language: str = ""
    abstained: bool = False

    @property
    def key(self) -> str:
        return f"{self.tone}-{self.pace}-{self.intent}"


@dataclass(frozen=True, slots=True)
class PersonaScore:
    """One persona's match: `score` is tone + pace + intent, 0 to 1; `tie_breaker` and `session_bonus` count in the
    comparison alone."""

    persona: str
    score: float
    tone: float
    pace: float
    intent: float
    tie_breaker: float
    session_bonus: float = 0.0

    @property
    def total(self) -> float:
        """What is compared."""
        return round(self.score + self.tie_breaker + self.session_bonus, _SAME)


@dataclass(frozen=True, slots=True)
class Routing:
    """The choice. `scores` is by name; `second` is None where there is one persona only."""

    signals: Signals
    best: PersonaScore
    second: PersonaScore | None
    scores: tuple[PersonaScore, ...]
    pinned: bool = False

    @property
    def persona(self) -> str:
        return self.best.persona

    @property
    def secondary(self) -> str:
        return self.second.persona if self.second else ""

    @property
    def margin(self) -> float:
        """How far ahead of the second; below 0 only for a pinned persona."""
        return round(self.best.total - self.second.total, _SAME) if self.second else 0.0

    @property
    def decided_by(self) -> tuple[str, ...]:
        """What told near-equals apart: "topic", "session", or both where neither was enough alone, or "draw". Empty
        where the scores did, and where nothing was to be decided."""
        if self.second is None or self.pinned:
            return ()
        if self.margin == 0:
            return ("draw",)
        behind = round(self.second.score - self.best.score, _SAME)
        if behind < 0:
            return ()
        if round(self.best.tie_breaker - self.second.tie_breaker, _SAME) > behind:
            return ("topic",)
        return ("session",) if self.best.session_bonus > behind else ("topic", "session")

    def foremost(self, number: int) -> list[PersonaScore]:
        """The best, best first, whoever is pinned."""
        return _ranked(self.scores, self.signals.seed)[:number]


def signals_of(analysis: Analysis, message: str, *, previous: str = "") -> Signals:
    return Signals(
        analysis.tone.primary,
        analysis.rhythm.pace,
        analysis.intent.primary,
        analysis.topics,
        seed=message,
        previous=previous,
        language=analysis.language,
        abstained=analysis.tone.abstained,
    )


def parse_key(key: str, *, previous: str = "") -> Signals:
    """`{tone}-{pace}-{intent}`. A part that is unknown or missing falls back alone, and is named."""
    parts = [part.strip() for part in key.lower().split("-", 2)] + ["", "", ""]
    known = (
        parts[0] if parts[0] in _TONE_ROW else "",
        parts[1] if parts[1] in _PACE_ROW else "",
        _known_intent(parts[2].replace("-", "_")),
    )
    defaulted = tuple(name for name, part in zip(("tone", "pace", "intent"), known, strict=True) if not part)
    tone, pace, intent = (part or default for part, default in zip(known, ("calm", "medium", "inquiry"), strict=True))
    seed = f"{tone}-{pace}-{intent}"
    return Signals(tone, pace, intent, (), seed=seed, defaulted_parts=defaulted, previous=previous)


def _known_intent(part: str) -> str:
    return part if part in _INTENT_ROW else ""


def choose(signals: Signals, table: PersonaTable, *, pinned: str = "") -> Routing:
    """The best match, or the persona named `pinned`."""
    return choose_all([signals], table, pinned=pinned)[0]


def choose_all(batch: Sequence[Signals], table: PersonaTable, *, pinned: str = "") -> list[Routing]:
    """One choice for each, all scores from one product. Of more than MAX_TOLD personas each message has the scores of
    the MAX_TOLD best, and of the one that is pinned or answered last."""
    if len(table.names) <= MAX_TOLD:
        return _choose(batch, table.names, table.affinities, table.fields, pinned)
    totals = _rows_as_weights(batch) @ table.affinities
    totals += TIE_BREAK * (_shares(batch) @ table.fields)
    routings = []
    for signals, row in zip(batch, totals, strict=True):
        named = [table.names.index(name) for name in {pinned, signals.previous} if name]
        told = np.union1d(_foremost(row.round(_SAME), signals.seed), np.array(named, dtype=np.intp))
        names = tuple(table.names[column] for column in told)
        routings += _choose([signals], names, table.affinities[:, told], table.fields[:, told], pinned)
    return routings


def _choose(
    batch: Sequence[Signals], names: tuple[str, ...], affinities: np.ndarray, fields: np.ndarray, pinned: str
) -> list[Routing]:
    affine = affinities[_rows(batch)]  # (messages, 3, personas)
    scores = WEIGHTS @ affine  # (messages, personas)
    parts = affine * WEIGHTS[:, np.newaxis]
    tie_breakers = TIE_BREAK * (_shares(batch) @ fields)
    columns = (matrix.round(_SAME).tolist() for matrix in (scores, parts, tie_breakers))
    return [
        _decide(signals, _scores(names, signals.previous, *values), pinned)
        for signals, *values in zip(batch, *columns, strict=True)
    ]


def _rows(batch: Sequence[Signals]) -> np.ndarray:
    """Shape (messages, 3): the rows of the affinities that count for each message."""
    return np.array([[_TONE_ROW[s.tone], _PACE_ROW[s.pace], _INTENT_ROW[s.intent]] for s in batch], dtype=np.intp)


def _rows_as_weights(batch: Sequence[Signals]) -> np.ndarray:
    """Shape (messages, tones + paces + intents): the weight of each row of the affinities for each message."""
    weights = np.zeros((len(batch), len(_TONE_ROW) + len(_PACE_ROW) + len(_INTENT_ROW)))
    np.put_along_axis(weights, _rows(batch), WEIGHTS[np.newaxis], axis=1)
    return weights


def _foremost(totals: np.ndarray, seed: str) -> np.ndarray:
    """The columns of the MAX_TOLD best; of equals at the end a run that begins where the seed says."""
    last = np.partition(totals, -MAX_TOLD)[-MAX_TOLD]
    better, equal = np.flatnonzero(totals > last), np.flatnonzero(totals == last)
    start = int.from_bytes(_draw(seed, "")) % len(equal)
    return np.concatenate((better, np.roll(equal, -start)[: MAX_TOLD - len(better)]))


def _shares(batch: Sequence[Signals]) -> np.ndarray:
    """Shape (messages, topics): how much each message is about each topic."""
    shares = np.zeros((len(batch), len(TOPICS)))
    for row, signals in enumerate(batch):
        for topic, share in signals.topics:
            shares[row, _TOPIC_COLUMN[topic]] = share
    return shares


def _scores(
    names: tuple[str, ...], previous: str, scores: list[float], parts: list[list[float]], tie_breakers: list[float]
) -> tuple[PersonaScore, ...]:
    return tuple(
        PersonaScore(name, min(1.0, score), tone, pace, intent, tie_breaker, SESSION_BONUS if name == previous else 0.0)
        for name, score, tone, pace, intent, tie_breaker in zip(names, scores, *parts, tie_breakers, strict=True)
    )


def _decide(signals: Signals, scores: tuple[PersonaScore, ...], pinned: str) -> Routing:
    ranked = _ranked(scores, signals.seed)
    if pinned:
        ranked.sort(key=lambda score: score.persona != pinned)
    return Routing(signals, ranked[0], ranked[1] if len(ranked) > 1 else None, scores, bool(pinned))


def _ranked(scores: tuple[PersonaScore, ...], seed: str) -> list[PersonaScore]:
    """Best first; between equals a draw that is the same every time for the same text, and fair over many."""
    totals = [score.total for score in scores]
    if len(set(totals)) == len(totals):
        return sorted(scores, key=_total, reverse=True)
    return sorted(scores, key=lambda score: (-score.total, _draw(seed, score.persona)))


def _draw(seed: str, persona: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{persona}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
