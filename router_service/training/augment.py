"""Messages that nobody wrote, made of parts of those that somebody did: without labels, for the teacher's opinion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from router_service.training.corpora import Row

# Where a message may be taken apart: after a mark, or before a word that joins.
_JOINT: Final = re.compile(r"(?<=[.!?…,~\n])\s+|(?<=[.!?])(?=[가-힣])|\s+(?=그리고|그런데|근데|but |and |so |because )")
_JOINED: Final = 0.45  # share made of whole parts; the others are messages with words taken away and exchanged
_EXCHANGED: Final = 0.15  # of the words of those
_TAKEN: Final = 0.15
_WITH_PART: Final = 0.2
_LONGEST: Final = 400  # characters


def recombined(rows: Sequence[Row], count: int, rng: np.random.Generator) -> Iterator[Row]:
    """About `count` messages, half of them Korean, of the same parts as the rows."""
    for language in ("ko", "en"):
        texts = [row.text for row in rows if row.language == language]
        parts = [part for text in texts for part in _JOINT.split(text) if part and len(part.strip()) > 1]
        words = [word for text in texts for word in text.split()]
        for _ in range(count // 2 if texts else 0):
            draw = rng.random()
            if draw < _JOINED:
                text = " ".join(parts[i] for i in rng.integers(len(parts), size=rng.integers(1, 3)))
            else:
                text = _disturbed(texts[rng.integers(len(texts))].split(), words, rng)
            if draw > 1 - _WITH_PART:
                both = [text, parts[rng.integers(len(parts))]]
                text = " ".join(both if rng.random() < 0.5 else both[::-1])
            if text.strip():
                yield Row(text[:_LONGEST], language, "recombined", "", "")


def _disturbed(own: Sequence[str], words: Sequence[str], rng: np.random.Generator) -> str:
    draws = rng.random(len(own))
    return " ".join(
        words[int(rng.integers(len(words)))] if draw < _EXCHANGED else word
        for word, draw in zip(own, draws, strict=True)
        if draw < _EXCHANGED or draw > _EXCHANGED + _TAKEN
    )
