"""Turns messages into hashed n-grams, in array operations alone.

A message becomes the buckets of its character n-grams (2 to 5), its words, word pairs and threes, its beginning and
its end, and a few counts. The hash of a span is its polynomial over the code points modulo 2^64: with the prefix sums S
and the inverse powers Q of the base it is (S[end] - S[start]) * Q[start], so that spans of every length come from two
arrays.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np

BITS: Final = 21
BUCKETS: Final = 1 << BITS
NO_BUCKET: Final = BUCKETS  # where an n-gram would reach over the end of its message
MAX_CHARACTERS: Final = 1100  # of a normalised message: what follows is not read
MAX_TOGETHER: Final = 64  # messages
CHARACTER_NGRAMS: Final = (2, 3, 4, 5)

_SHIFT: Final = np.uint64(64 - BITS)
_MIX: Final = np.uint64(0xD6E8FEB86659FD93)
_FOLD: Final = np.uint64(32)
_BASE: Final = 0x9E3779B97F4A7C15


def _powers(base: int, count: int) -> np.ndarray:
    """Shape (count,): base^0, base^1, ... modulo 2^64."""
    powers = np.ones(count, dtype=np.uint64)
    np.cumprod(np.full(count - 1, base, dtype=np.uint64), out=powers[1:])
    return powers


_LONGEST: Final = MAX_TOGETHER * (MAX_CHARACTERS + 20)
_P: Final = _powers(_BASE, _LONGEST)
_Q: Final = _powers(pow(_BASE, -1, 1 << 64), _LONGEST)
# One odd factor a family of n-grams, so that the same text in two families falls into two buckets.
_FAMILIES: Final = _powers(0xBF58476D1CE4E5B9, 16)
_CHARACTERS: Final = _FAMILIES[list(CHARACTER_NGRAMS)][:, np.newaxis]
_WORDS: Final = _FAMILIES[[10, 11, 13]][:, np.newaxis]
_COUNT_BUCKETS: Final = (np.arange(1, 33, dtype=np.uint64) * _FAMILIES[12] >> _SHIFT).astype(np.int64)


def _over(sizes: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows, and distances from the end of a message, at which an n-gram would reach over it; each of shape (n, 1)."""
    over = np.array([(row, back) for row, size in enumerate(sizes) for back in range(1, size)])
    return over[:, :1], over[:, 1:]


_CHARACTERS_OVER: Final = _over(CHARACTER_NGRAMS)
_WORDS_OVER: Final = _over((1, 2, 3))

_REPEATED: Final = re.compile(r"(.)(?=\1\1\1)", re.DOTALL)  # all of a run but its last three
# Full-width forms, and the other marks of East Asian and typographic text, as their ASCII counterparts.
_NARROW: Final = {wide: wide - 0xFEE0 for wide in range(0xFF01, 0xFF5F)} | dict(
    zip(map(ord, "\u3000。、‘’“”"), " .,''\"\"", strict=True)
)
_WIDE: Final = re.compile("[\uff01-\uff5e\u3000。、‘’“”]")
_NINE_DIGITS: Final = np.uint32(9)
_ONE: Final = np.uint32(ord("1"))
MARKS: Final = " .!?~…,;:\n\"')"
_ENDING: Final = 8  # characters
_LETTER_RANGES: Final = (
    *("\x02\x04", "09", "az", "''", "\u00c0\u024f", "\u0370\u052f", "\u1100\u11ff", "\u3040\u30ff"),
    *("\u3130\u318f", "\u4e00\u9fff", "\uac00\ud7a3", "\u2600\u27bf", "\U0001f300\U0001faff"),
)


def _letters() -> np.ndarray:
    """Shape (0x110000,): which code points make words: letters, digits, apostrophes, pictographs, and the bounds."""
    letters = np.zeros(0x110000, dtype=bool)
    for first, last in (map(ord, bounds) for bounds in _LETTER_RANGES):
        letters[first : last + 1] = True
    return letters


_LETTERS: Final = _letters()


@dataclass(frozen=True, slots=True)
class Features:
    """Buckets of some messages.

    `characters` has shape (4, n): a row a size, a column a code point at which the n-gram starts. `starts` and `ends`,
    shape (messages,), bound each message's columns. `words` has shape (3, w): words, pairs with the next word, and
    threes. `word_spans`, shape (2, w), are their first columns and ends; `word_edges`, shape (messages + 1,), bound
    each message's words. `counts` has shape (messages, 7). The message itself begins 3 columns after its start.
    """

    characters: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    words: np.ndarray
    word_spans: np.ndarray
    word_edges: np.ndarray
    counts: np.ndarray


def readable(message: str) -> str:
    """The message as it is read: composed, full-width forms as ASCII, runs of one character cut to three, bounded."""
    text = message if message.isascii() else _composed(message)
    return _REPEATED.sub("", text)[:MAX_CHARACTERS].strip()


def _composed(text: str) -> str:
    narrow = text.translate(_NARROW) if _WIDE.search(text) else text
    return unicodedata.normalize("NFC", narrow)


def extract(texts: Sequence[str]) -> Features:
    """The buckets of at most MAX_TOGETHER readable texts; those of each are the same in whatever company."""
    bounded = [_bounded(text.lower()[:MAX_CHARACTERS]) for text in texts]
    codes = _codes("".join(bounded))
    bounds = np.array([0, *accumulate(map(len, bounded))])
    starts, ends = bounds[:-1], bounds[1:]
    sums = _prefix_sums(codes)
    spans = _word_spans(codes)
    edges = spans[0].searchsorted(bounds)
    counts = _COUNT_BUCKETS.take([_steps(text) for text in texts])
    return Features(_character_ngrams(sums, ends), starts, ends, _words(sums, spans, edges), spans, edges, counts)


def _bounded(text: str) -> str:
    """The text between its bounds, and what it ends in without its marks once more: questions, requests and statements
    differ there, in Korean above all."""
    return f" \x02 {text} \x03 {text.rstrip(MARKS)[-_ENDING:]} \x04 "


def _codes(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).copy()
    codes[codes - _ONE < _NINE_DIGITS] = ord("0")
    return codes


def _prefix_sums(codes: np.ndarray) -> np.ndarray:
    """Shape (n + 1,): the polynomial of the first so many code points."""
    mixed = codes * _MIX
    mixed ^= mixed >> _FOLD
    mixed *= _P[: len(codes)]
    sums = np.zeros(len(codes) + 1, dtype=np.uint64)
    mixed.cumsum(out=sums[1:])
    return sums


def _character_ngrams(sums: np.ndarray, ends: np.ndarray) -> np.ndarray:
    count = len(sums) - 1
    hashes = np.zeros((len(CHARACTER_NGRAMS), count), dtype=np.uint64)
    for row, size in enumerate(CHARACTER_NGRAMS):
        np.subtract(sums[size:], sums[:-size], out=hashes[row, : count + 1 - size])
    hashes *= _Q[:count]
    hashes *= _CHARACTERS
    return _buckets(hashes, _CHARACTERS_OVER, ends)


def _buckets(hashes: np.ndarray, over: tuple[np.ndarray, np.ndarray], ends: np.ndarray) -> np.ndarray:
    """Their upper bits, and NO_BUCKET where an n-gram would reach over one of the ends. `hashes` is lost."""
    hashes >>= _SHIFT
    buckets = hashes.view(np.int64)
    rows, backs = over
    buckets[rows, ends - backs] = NO_BUCKET
    return buckets


def _word_spans(codes: np.ndarray) -> np.ndarray:
    """Shape (2, words): first column and end of each run of letters."""
    letters = _LETTERS.take(codes)
    (edges,) = np.nonzero(letters[1:] != letters[:-1])
    spans: np.ndarray = (edges + 1).reshape(-1, 2).T
    return spans


def _words(sums: np.ndarray, spans: np.ndarray, edges: np.ndarray) -> np.ndarray:
    first, end = spans
    hashes = np.zeros((3, len(first)), dtype=np.uint64)
    upto = sums[end]
    before = sums[first]
    np.subtract(upto, before, out=hashes[0])
    np.subtract(upto[1:], before[:-1], out=hashes[1, :-1])
    np.subtract(upto[2:], before[:-2], out=hashes[2, :-2])
    hashes *= _Q[first]
    hashes *= _WORDS
    return _buckets(hashes, _WORDS_OVER, edges[1:])


def _steps(text: str) -> list[int]:
    """How much of what stands in a text, in coarse steps."""
    return [
        min(text.count("?"), 3),
        4 + min(text.count("!"), 3),
        8 + min(text.count("\n"), 3),
        12 + min(text.count("%"), 3),
        16 + min(text.count("ㅋ") + text.count("ㅎ"), 3),
        20 + min(text.count("ㅠ") + text.count("ㅜ"), 3),
        24 + min(len(text).bit_length(), 7),
    ]
