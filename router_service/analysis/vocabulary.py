"""The labels that a reading, a resonance key and a persona's affinities are made of."""

from __future__ import annotations

from typing import Final

TONES: Final[tuple[str, ...]] = (
    "frustrated",
    "calm",
    "curious",
    "analytical",
    "playful",
    "anxious",
    "urgent",
    "confused",
    "collaborative",
)
PACES: Final[tuple[str, ...]] = ("burst", "flowing", "contemplative", "medium")
# Those that are read from a message; the others only a resonance key can name.
READ_INTENTS: Final[tuple[str, ...]] = ("inquiry", "request", "statement", "expressive")
INTENTS: Final[tuple[str, ...]] = (
    *READ_INTENTS,
    "seek_advice",
    "problem_solving",
    "learning",
    "validation",
    "planning",
    "reflection",
)
TOPICS: Final[tuple[str, ...]] = ("data", "code", "feelings", "planning")
