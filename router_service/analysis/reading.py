"""What was read from a message."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tone:
    """`confidence` is the calibrated probability of `primary`, 0 to 1. `secondary` is "" when nothing else showed.

    Where no tone is likely enough the reader abstains: `primary` is then calm, with calm's own low probability.
    """

    primary: str
    confidence: float
    secondary: str
    secondary_confidence: float = 0.0
    abstained: bool = False


@dataclass(frozen=True, slots=True)
class Intent:
    """`confidence` is the calibrated probability of `primary`, 0 to 1."""

    primary: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Rhythm:
    """`avg_length` is mean words a sentence; `punctuation_density` the share of characters in . , ! ? ; : and
    `confidence`, 0.5 to 1, how far the pace is from turning into another."""

    pace: str
    avg_length: float
    punctuation_density: float
    confidence: float = 1.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """A word of the message, of a long one a run of words, and how much it speaks for the tone: by how much the tone's
    log-odds fall without it, above 0."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a message says of itself. `topics` are (topic, probability), likeliest first; they sum to at most 1, and ()
    means that none showed. `language` is "ko" or "en". `evidence`, where it was asked for, are the words behind the
    likeliest tone, strongest first."""

    tone: Tone
    intent: Intent
    rhythm: Rhythm
    topics: tuple[tuple[str, float], ...]
    language: str
    evidence: tuple[Evidence, ...] = ()
