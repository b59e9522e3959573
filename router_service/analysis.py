"""Reads a message: its tone, pace, intent, topics and language, from the cues of the lexicon."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from router_service.lexicon import FULL_WIDTH, IMPERATIVES, INTENT_CUES, TONE_CUES, Votes, find_votes

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
INTENTS: Final[tuple[str, ...]] = (
    "inquiry",
    "request",
    "statement",
    "expressive",
    "seek_advice",
    "problem_solving",
    "learning",
    "validation",
    "planning",
    "reflection",
)
TOPICS: Final[tuple[str, ...]] = ("data", "code", "feelings", "planning")


@dataclass(frozen=True, slots=True)
class Tone:
    """`confidence` is 0 to 1; `secondary` is "" when nothing else showed."""

    primary: str
    confidence: float
    secondary: str


@dataclass(frozen=True, slots=True)
class Intent:
    """`confidence` is 0 to 1."""

    primary: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Rhythm:
    """`avg_length` is mean words a sentence; `punctuation_density` the share of characters in . , ! ? ; :"""

    pace: str
    avg_length: float
    punctuation_density: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """What a message says of itself. `topics` are (topic, share), likeliest first; the shares sum to at most 1, and
    () means that none showed. `language` is "ko" or "en"."""

    tone: Tone
    intent: Intent
    rhythm: Rhythm
    topics: tuple[tuple[str, float], ...]
    language: str


def read(message: str) -> Analysis:
    """Read any text whatever: pure, and the same for the same text.

    The pace is burst (under 4 words a sentence and more than 8 % punctuation), contemplative (10 words or more) or
    flowing. The fourth pace, medium, is never read; it is what a resonance key without a pace falls back to.
    """
    text = _plain(message)
    votes = find_votes(text.lower())
    rhythm, questions, exclamations = _rhythm(text)
    tone = _tone(votes, questions, text)
    return Analysis(
        tone=tone,
        intent=_intent(votes, questions, exclamations, tone, text),
        rhythm=rhythm,
        topics=_topics(votes),
        language=_language(text),
    )


_SENTENCE_END: Final = re.compile("[.!?]+")
_PUNCTUATION: Final = ".,!?;:"
_MEASURED: Final = re.compile(r"\d ?(?:%|ms\b|[kmg]b\b|건|명|배)", re.IGNORECASE)
_IMPERATIVE: Final = re.compile(rf"(?:^|[.!?:;]\s)\s*(?:{IMPERATIVES})\b", re.IGNORECASE)
_HANGUL: Final = re.compile("[가-힣ㄱ-ㆎ]+")
_LATIN: Final = re.compile("[A-Za-z]+")


def _plain(message: str) -> str:
    """Composed, with ASCII marks in place of full-width ones."""
    if message.isascii():
        return message
    text = unicodedata.normalize("NFC", message)
    for full_width, ascii_mark in FULL_WIDTH:
        text = text.replace(full_width, ascii_mark)
    return text


def _rhythm(text: str) -> tuple[Rhythm, bool, bool]:
    """The rhythm, and whether the message asks and exclaims: more than 0.3 such marks a sentence."""
    lengths = [length for sentence in _SENTENCE_END.split(text) if (length := len(sentence.split()))]
    sentences = len(lengths) or 1
    avg_length = sum(lengths) / sentences
    density = sum(map(text.count, _PUNCTUATION)) / (len(text) or 1)
    rhythm = Rhythm(_pace(avg_length, density), avg_length, density)
    return rhythm, text.count("?") / sentences > 0.3, text.count("!") / sentences > 0.3


def _pace(avg_length: float, density: float) -> str:
    if avg_length < 4 and density > 0.08:
        return "burst"
    return "contemplative" if avg_length >= 10 else "flowing"


def _tone(votes: Votes, asks: bool, text: str) -> Tone:
    cues = votes["tone"]
    intents = votes["intent"]
    scores = {tone: cues.get(tone, 0.0) for tone in TONE_CUES}
    scores["analytical"] += min(3, len(_MEASURED.findall(text)))
    if (asks or "inquiry" in intents) and "request" not in intents:
        scores["curious"] += 1.5  # a question leans to curiosity; a request in its clothes does not
    secondary = sorted(scores, key=scores.__getitem__, reverse=True)
    scores["calm"] += 0.5  # what is left when nothing shows
    primary, confidence = _winner(scores)
    others = (tone for tone in secondary if tone != primary and scores[tone] > 0.5)
    return Tone(primary, confidence, next(others, ""))


def _intent(votes: Votes, asks: bool, exclaims: bool, tone: Tone, text: str) -> Intent:
    scores = {intent: votes["intent"].get(intent, 0.0) for intent in INTENT_CUES}
    scores["inquiry"] += 2 * asks
    scores["expressive"] += 2 * exclaims + (tone.primary in _VENTED)
    scores["request"] += 3 * (_IMPERATIVE.search(text) is not None)
    scores["statement"] = 1.0
    return Intent(*_winner(scores))


_VENTED: Final = frozenset({"frustrated", "anxious", "playful"})


def _winner(scores: dict[str, float]) -> tuple[str, float]:
    """The first of the highest, and its share of all evidence, held below 1 as one cue alone proves little."""
    best = max(scores, key=scores.__getitem__)
    return best, scores[best] / (sum(scores.values()) + 1)


def _topics(votes: Votes) -> tuple[tuple[str, float], ...]:
    found = votes["topic"]
    evidence = sum(found.values()) + 1
    return tuple((topic, found[topic] / evidence) for topic in sorted(found, key=lambda name: (-found[name], name)))


def _language(text: str) -> str:
    """Korean from a quarter of Hangul on, since Korean sentences at work are full of English terms."""
    if text.isascii():
        return "en"
    hangul = sum(map(len, _HANGUL.findall(text)))
    latin = sum(map(len, _LATIN.findall(text)))
    return "ko" if hangul and hangul * 3 >= latin else "en"
