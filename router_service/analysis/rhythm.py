"""How a message flows, by its sentences and marks, and in which language it is written."""

from __future__ import annotations

import math
import re
from typing import Final

from router_service.analysis.reading import Rhythm

_SENTENCE_END: Final = re.compile("[.!?]+")
_PUNCTUATION: Final = ".,!?;:"
_HANGUL: Final = re.compile("[가-힣ㄱ-ㆎ]+")
_LATIN: Final = re.compile("[A-Za-z]+")


def rhythm_of(text: str) -> Rhythm:
    """The pace is burst (under 4 words a sentence and more than 8 % punctuation), contemplative (10 words or more) or
    flowing. The fourth, medium, is what a resonance key without a pace falls back to, and is never read.
    """
    lengths = [length for sentence in _SENTENCE_END.split(text) if (length := len(sentence.split()))]
    average = sum(lengths) / (len(lengths) or 1)
    density = sum(map(text.count, _PUNCTUATION)) / (len(text) or 1)
    return Rhythm(_pace(average, density), average, density, round(_confidence(average, density), 4))


def _pace(average: float, density: float) -> str:
    if average < 4 and density > 0.08:
        return "burst"
    return "contemplative" if average >= 10 else "flowing"


def _confidence(average: float, density: float) -> float:
    """How far from the nearest threshold, as the chance that one word or mark more or less would not change the pace:
    0.5 on a threshold, 1 far from it."""
    long = _sigmoid(average - 10)
    burst = _sigmoid(2 * (4 - average)) * _sigmoid(100 * (density - 0.08))
    return max(long, (1 - long) * burst, (1 - long) * (1 - burst))


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))


def language_of(text: str) -> str:
    """Korean from a quarter of Hangul on, since Korean sentences at work are full of English terms."""
    if text.isascii():
        return "en"
    hangul = _length(_HANGUL, text)
    return "ko" if hangul and hangul * 3 >= _length(_LATIN, text) else "en"


def _length(pattern: re.Pattern[str], text: str) -> int:
    return len("".join(pattern.findall(text)))
