"""Reads messages with trained weights: NumPy alone, the same answer for the same text in whatever company."""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from router_service.analysis.features import (
    BUCKETS,
    MARKS,
    MAX_TOGETHER,
    Features,
    extract,
    readable,
)
from router_service.analysis.reading import Analysis, Evidence, Intent, Tone
from router_service.analysis.rhythm import language_of, rhythm_of
from router_service.analysis.vocabulary import READ_INTENTS, TONES, TOPICS

SHIPPED: Final = Path(__file__).parent / "weights" / "reader.npz"
SUBJECTS: Final = (*TOPICS, "none")
HEADS: Final = (len(TONES), len(READ_INTENTS), len(SUBJECTS))
COLUMNS: Final = 2 * sum(HEADS) + 1
_TONE, _INTENT, _SUBJECT = (slice(sum(HEADS[:at]), sum(HEADS[: at + 1])) for at in range(3))
# Shape (labels, labels): 1 where both belong to one head.
_SAME_HEAD: Final = np.equal.outer(*[np.repeat(range(3), HEADS)] * 2).astype(np.float64)
_CALM: Final = TONES.index("calm")
_SHOWS: Final = 0.1  # probability from which a secondary tone or a topic is named
_WORD: Final = re.compile(r"\S+")
# How many words or runs of words are left out in turn to see what speaks for a tone, and how much is read anew for it.
_MOST_PIECES: Final = 32
_FEWEST_PIECES: Final = 4
_CHARACTERS_ANEW: Final = 4000
_DIGITS: Final = 4  # of a probability: what is left is the same in every order of summation


class WeightsError(ValueError):
    """Weights that cannot be used; says which file and why."""


@dataclass(frozen=True)
class Weights:
    """A reader's parameters, for n kept buckets, width w, k units over words, h hidden units and c = 2 * labels + 1
    columns: the labels as read in general, the labels as read in chats at work, and a gate between the two.

    `kept`, shape (BUCKETS / 8,), uint8: a bit a bucket, packed, set where it has an embedding. `embedding` (n, w) int8,
    in the order of the buckets, times `scale` (w,). `window` (3 w, k), `window_bias` (k,): over a word's neighbour
    before, itself and the one after. `hidden` (w + 2 k, h), `hidden_bias` (h,), `out` (h, c), `skip` (w + 2 k, c) and
    `bias` (c,): over the whole message. All float32. Below `abstain` no tone is likely enough.
    """

    kept: np.ndarray
    embedding: np.ndarray
    scale: np.ndarray
    window: np.ndarray
    window_bias: np.ndarray
    hidden: np.ndarray
    hidden_bias: np.ndarray
    out: np.ndarray
    skip: np.ndarray
    bias: np.ndarray
    abstain: np.ndarray


@dataclass(frozen=True, slots=True)
class _Words:
    """Words of messages, as numbers. `starts`, shape (messages,), are their first ones, `counts` how many each has.

    `vectors`, shape (words, w + 1): the embeddings of a word's n-grams, summed, over the square root of their number;
    `bags`, shape (messages, w + 1): the same for all n-grams of a message.
    """

    starts: np.ndarray
    counts: np.ndarray
    vectors: np.ndarray
    bags: np.ndarray


@dataclass(frozen=True)
class Probabilities:
    """Shapes (messages, tones), (messages, read intents), (messages, topics + none); every row sums to 1."""

    tone: np.ndarray
    intent: np.ndarray
    subject: np.ndarray


def save_weights(weights: Weights, path: Path, **manifest: object) -> None:
    """Writes the weights, and beside them a manifest with their checksum; the same bytes for the same weights."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in vars(weights).items()}
    np.savez(buffer, **arrays)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    text = json.dumps({**manifest, "sha256": digest}, indent=2, ensure_ascii=False)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")


def load_weights(path: Path) -> tuple[Weights, str]:
    """The weights and their version. Raises WeightsError where they are missing, damaged or of another shape."""
    try:
        data = path.read_bytes()
        manifest = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            raise WeightsError(f"{path.name}: is not what its checksum says")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            weights = Weights(**arrays)
        if not _fits(weights):
            raise WeightsError(f"{path.name}: is of another shape than this reader's")
        return weights, str(manifest["version"])
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{path.name}: cannot be read ({type(error).__name__})") from error


def _fits(weights: Weights) -> bool:
    """Whether types and shapes are those of this reader, for some number of buckets, width and hidden units."""
    if weights.kept.shape != (BUCKETS // 8,) or weights.kept.dtype != np.uint8 or weights.embedding.dtype != np.int8:
        return False
    count, width, units = np.count_nonzero(_kept(weights)), weights.scale.size, weights.hidden_bias.size
    over_words = weights.window_bias.size
    shapes = {
        "embedding": (count, width),
        "scale": (width,),
        "window": (3 * width, over_words),
        "window_bias": (over_words,),
        "hidden": (width + 2 * over_words, units),
        "hidden_bias": (units,),
        "out": (units, COLUMNS),
        "skip": (width + 2 * over_words, COLUMNS),
        "bias": (COLUMNS,),
        "abstain": (),
    }
    return all(getattr(weights, name).shape == shape for name, shape in shapes.items())


def _kept(weights: Weights) -> np.ndarray:
    """Shape (BUCKETS,), bool: which have an embedding."""
    return np.unpackbits(weights.kept).view(np.bool_)


class Reader:
    """Reads any text whatever."""

    def __init__(self, weights: Weights, version: str = "") -> None:
        count, width = weights.embedding.shape
        self.version = version
        self._abstain = float(weights.abstain)
        # A column more counts the embeddings that are summed; the last row is that of whatever has none.
        self._embedding = np.zeros((count + 1, width + 1), np.int8)
        self._embedding[:count, :width] = weights.embedding
        self._embedding[:count, width] = 1
        self._row = np.full(BUCKETS + 1, count, dtype=np.int32)
        self._row[np.flatnonzero(_kept(weights))] = np.arange(count, dtype=np.int32)
        # In double precision, so that the digits shown are the same in every order of summation and on every machine.
        scale = np.append(weights.scale, 0).astype(np.float64)  # nothing but the count is in the last column
        self._window = np.vstack([_with_scale(part, scale) for part in np.split(weights.window, 3)])
        self._hidden, self._skip = _with_scale(weights.hidden, scale), _with_scale(weights.skip, scale)
        layers = (weights.hidden_bias, weights.out, weights.bias, weights.window_bias)
        self._hidden_bias, self._out, self._bias, self._window_bias = (each.astype(np.float64) for each in layers)

    @classmethod
    def load(cls, path: Path | None = None) -> Reader:
        """The shipped weights, or those of another file. Raises WeightsError."""
        return cls(*load_weights(path or SHIPPED))

    def read(self, message: str, evidence: int = 0) -> Analysis:
        """Pure, and the same for the same text. With at most `evidence` words behind its tone."""
        text = readable(message)
        chances = _softmax_heads(blend(self._few_columns([text])))[0].round(_DIGITS).tolist()
        analysis = self._analysis(text, chances)
        if not evidence:
            return analysis
        return replace(analysis, evidence=self._evidence(text, _likeliest(chances[_TONE]), evidence))

    def read_all(self, messages: Sequence[str]) -> list[Analysis]:
        """As `read` of each, at a fraction of the time a message."""
        texts = [readable(message) for message in messages]
        chances = self._chances(texts).round(_DIGITS).tolist()
        return [self._analysis(*each) for each in zip(texts, chances, strict=True)]

    def probabilities(self, messages: Sequence[str]) -> Probabilities:
        """What `read` decides by."""
        chances = self._chances([readable(message) for message in messages])
        return Probabilities(chances[:, _TONE], chances[:, _INTENT], chances[:, _SUBJECT])

    def columns(self, messages: Sequence[str]) -> np.ndarray:
        """Shape (messages, COLUMNS): what the probabilities are made of, for those who calibrate them."""
        return self._all_columns([readable(message) for message in messages])

    def _chances(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (messages, labels), every head's part of a row summing to 1."""
        return _softmax_heads(blend(self._all_columns(texts)))

    def _all_columns(self, texts: Sequence[str]) -> np.ndarray:
        chunks = (texts[at : at + MAX_TOGETHER] for at in range(0, len(texts), MAX_TOGETHER))
        rows = [self._few_columns(chunk) for chunk in chunks]
        return np.concatenate(rows) if rows else np.zeros((0, COLUMNS))

    def _few_columns(self, texts: Sequence[str]) -> np.ndarray:
        """Of at most MAX_TOGETHER texts."""
        words = self._words(extract(texts))
        return self._columns(_summary(words, self._over_words(words)))

    def _words(self, features: Features) -> _Words:
        """Each n-gram counts for the word it begins in or after, the counts of a message for its first word."""
        edges = features.word_edges
        starts = edges[:-1]
        firsts = features.word_spans[0].copy()
        firsts[starts] = features.starts
        sums = np.add.reduceat(self._sums(features.characters), firsts, axis=0, dtype=np.float64)
        sums += self._sums(features.words)
        sums[starts] += self._sums(features.counts.T)
        return _Words(starts, edges[1:] - starts, _even(sums), _even(np.add.reduceat(sums, starts, axis=0)))

    def _sums(self, buckets: np.ndarray) -> np.ndarray:
        """Of buckets of shape (m, n): the sums of the embeddings, and how many there were, shape (n, w + 1)."""
        sums: np.ndarray = self._embedding.take(self._row.take(buckets), axis=0).sum(0, dtype=np.int16)
        return sums

    def _over_words(self, words: _Words) -> np.ndarray:
        """Shape (words, k): what each word says beside its neighbours."""
        count, width = words.vectors.shape
        beside = np.zeros((count, 3 * width))
        beside[1:, :width] = words.vectors[:-1]
        beside[:, width : 2 * width] = words.vectors
        beside[:-1, 2 * width :] = words.vectors[1:]
        beside[words.starts, :width] = 0  # the first word of a message, and the last, are beside nothing
        beside[words.starts + words.counts - 1, 2 * width :] = 0
        over_words: np.ndarray = beside @ self._window
        over_words += self._window_bias
        np.maximum(over_words, 0, out=over_words)
        return over_words

    def _columns(self, summary: np.ndarray) -> np.ndarray:
        """Shape (messages, COLUMNS)."""
        hidden = np.maximum(summary @ self._hidden + self._hidden_bias, 0)
        columns: np.ndarray = hidden @ self._out + summary @ self._skip + self._bias
        return columns

    def _evidence(self, text: str, tone: int, limit: int) -> tuple[Evidence, ...]:
        """What the text says the tone with: the words without which its log-odds fall most."""
        pieces = _pieces(text)
        chances = self._chances([text, *(text[:start] + text[stop:] for start, stop in pieces)])[:, tone]
        odds = np.log(chances) - np.log1p(-chances.clip(max=1 - 1e-9))
        found: dict[str, float] = {}
        for (start, stop), loss in zip(pieces, (odds[0] - odds[1:]).round(_DIGITS).tolist(), strict=True):
            if loss > 0:
                word = text[start:stop].strip(MARKS) or text[start:stop]
                found[word] = max(loss, found.get(word, 0.0))
        strongest = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:limit]
        return tuple(Evidence(word, loss) for word, loss in strongest)

    def _analysis(self, text: str, chances: list[float]) -> Analysis:
        intents = chances[_INTENT]
        intent = _likeliest(intents)
        return Analysis(
            tone=_tone(chances[_TONE], self._abstain),
            intent=Intent(READ_INTENTS[intent], intents[intent]),
            rhythm=rhythm_of(text),
            topics=_topics(chances[_SUBJECT]),
            language=language_of(text),
        )


def _with_scale(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The weights with those of the embeddings, which come first, for embeddings as they are stored."""
    width = len(scale) - 1
    of_embeddings = np.vstack((weights[:width], np.zeros((1, weights.shape[1])))) * scale[:, np.newaxis]
    return np.vstack((of_embeddings, weights[width:]))


def _even(sums: np.ndarray) -> np.ndarray:
    """Sums over the square root of how many embeddings are in them."""
    evened: np.ndarray = sums / np.sqrt(np.maximum(sums[:, -1:], 1))
    return evened


def _summary(words: _Words, over_words: np.ndarray) -> np.ndarray:
    """Shape (messages, w + 1 + 2 k): the bag of each message, and over its words the sum, made even, and the most."""
    sums = np.add.reduceat(over_words, words.starts, axis=0) / np.sqrt(words.counts)[:, np.newaxis]
    most = np.maximum.reduceat(over_words, words.starts, axis=0)
    return np.concatenate((words.bags, sums, most), axis=1)


def _pieces(text: str) -> list[tuple[int, int]]:
    """Begin and end of each word; of a long text of runs of words, so that it costs no more than a short one."""
    words = [match.span() for match in _WORD.finditer(text)]
    most = max(_FEWEST_PIECES, min(_MOST_PIECES, _CHARACTERS_ANEW // max(len(text), 1)))
    together = -(-len(words) // most) or 1
    runs = (words[at : at + together] for at in range(0, len(words), together))
    return [(run[0][0], run[-1][1]) for run in runs]


def blend(columns: np.ndarray) -> np.ndarray:
    """Shape (messages, labels): the logits, between those in general and those at work."""
    general, at_work = columns[:, : sum(HEADS)], columns[:, sum(HEADS) : -1]
    logits: np.ndarray = general + _gate(columns) * (at_work - general)
    return logits


def _gate(columns: np.ndarray) -> np.ndarray:
    """Shape (messages, 1): how much each message is one from a chat at work, 0 to 1."""
    gate: np.ndarray = 0.5 + 0.5 * np.tanh(0.5 * columns[:, -1:])
    return gate


def _softmax_heads(logits: np.ndarray) -> np.ndarray:
    chances: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances @ _SAME_HEAD
    return chances


def _likeliest(chances: list[float]) -> int:
    """The first of equals."""
    return chances.index(max(chances))


def _tone(chances: list[float], abstain: float) -> Tone:
    first = _likeliest(chances)
    second = _likeliest([*chances[:first], -1.0, *chances[first + 1 :]])
    if chances[first] < abstain:
        shown = TONES[first] if first != _CALM else ""
        return Tone("calm", chances[_CALM], shown, chances[first] if shown else 0.0, abstained=True)
    if chances[second] < _SHOWS:
        return Tone(TONES[first], chances[first], "")
    return Tone(TONES[first], chances[first], TONES[second], chances[second])


def _topics(chances: list[float]) -> tuple[tuple[str, float], ...]:
    shown = [(topic, chance) for topic, chance in zip(TOPICS, chances, strict=False) if chance >= _SHOWS]
    return tuple(sorted(shown, key=lambda item: (-item[1], item[0])))
