"""From labelled messages to the reader's weights, the same bytes on every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from router_service.analysis.features import BUCKETS
from router_service.analysis.reader import HEADS, Weights
from router_service.training import augment, corpora, teacher
from router_service.training.corpora import LABELS, Row, at_work, other_writing
from router_service.training.student import Examples, Grams, Options, Params, fit, grams_of

KEPT: Final = 112_000  # buckets with an embedding: 3.6 MB at 32 bytes each
RECOMBINED: Final = 60_000  # messages made of parts of the own corpus
NOISE: Final = 3000  # texts that are no messages, or in no language that is read
# How much a source's messages count where buckets are chosen.
WEIGHTS: Final = {"ion": 4.0, "recombined": 0.5, "stylekqc": 0.3, "noise": 0.02}
SIGHTINGS: Final = {"ion": 2}  # an epoch, of either writing; the others are seen once
MOST: Final = {
    ("mrda", "statement"): 12_000,
    ("3i4k", "statement"): 9500,
    ("3i4k", "inquiry"): 9500,
    ("stylekqc", "inquiry"): 1500,
    ("stylekqc", "request"): 1500,
}
_ONCE: Final = frozenset({"recombined", "noise"})  # sources of texts without another writing
LABEL_WEIGHTS: Final = {"stylekqc": 0.3}  # how much a source's labels count beside the teacher's opinions
BALANCE: Final = 0.5  # rare labels count more: the inverse of their share to this power
# How much the teacher's opinion of a source's messages counts, in general and at work.
_OPINIONS: Final = {"ion": (0.0, 1.5), "recombined": (0.0, 1.0), "seed": (0.0, 0.5), "noise": (0.3, 0.3)}
_OTHER_OPINIONS: Final = (1.0, 0.5)
_LABELS: Final = sum(HEADS)
_SCRIPTS: Final = ("az", "AZ", "09", "\u0400\u044f", "\u0590\u05ea", "\u0621\u064a", "\u0905\u0939", "\u0e01\u0e2e",
                   "\u3041\u3093", "\u30a1\u30f3", "\u4e00\u6fff", "\u10d0\u10f0", "!/", "\u0101\u017f")  # fmt: skip


def curriculum(own: Sequence[Row], others: Sequence[Row], rng: np.random.Generator) -> list[Row]:
    """All that the teacher is asked about and the student is shown: the own corpus, of the others what MOST allows,
    parts of the own corpus put together anew, and noise."""
    chosen = [row for rows in corpora.at_most(others, MOST, rng) for row in rows]
    return [*own, *chosen, *augment.recombined(own, RECOMBINED, rng), *noise(NOISE, rng)]


def unasked(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    """The labelled messages of others that are not among the rows, for the student alone."""
    asked = {(row.source, row.text) for row in rows}
    return [row for row in others if (row.source, row.text) not in asked]


def noise(count: int, rng: np.random.Generator) -> list[Row]:
    """Texts of random signs, each of one script."""
    rows = []
    for _ in range(count):
        first, last = map(ord, _SCRIPTS[rng.integers(len(_SCRIPTS))])
        words = [
            "".join(map(chr, rng.integers(first, last + 1, rng.integers(1, 9)))) for _ in range(rng.integers(1, 16))
        ]
        rows.append(Row(" ".join(words), "en", "noise", "", ""))
    return rows


def examples(rows: Sequence[Row], opinions: np.ndarray, grams: Grams) -> Examples:
    """What the student is to learn, `opinions` being the teacher's probabilities, shape (rows, 2 * labels)."""
    targets, weights = targets_of(rows)
    work = np.array([1 if at_work(row) or row.source == "recombined" else 0 for row in rows], np.float32)
    work[[row.source == "noise" for row in rows]] = -1
    counts = np.array([_OPINIONS.get(row.source, _OTHER_OPINIONS) for row in rows], np.float32)
    counts[opinions.sum(1) == 0] = 0
    sightings = np.array([SIGHTINGS.get(row.source, 1) for row in rows])
    return Examples(grams, targets, balanced(targets, weights, rows), opinions, counts, work, sightings)


def student_of(
    rows: Sequence[Row],
    opinions: np.ndarray,
    unasked: Sequence[Row],
    progress: Callable[[int, int], None],
    seed: int = 0,
    kept: int = KEPT,
) -> Weights:
    """The weights of a reader that has learnt from the rows with the teacher's opinions and from the labels alone of
    those that it was not asked about, each also as somebody else would type it; not yet calibrated."""
    rows = [*rows, *unasked]
    opinions = np.concatenate((opinions, np.zeros((len(unasked), opinions.shape[1]), opinions.dtype)))
    again = np.flatnonzero([row.source not in _ONCE for row in rows])
    rows = [*rows, *(other_writing(rows[i]) for i in again.tolist())]
    opinions = np.concatenate((opinions, opinions[again]))
    grams = grams_of([row.text for row in rows])
    chosen = kept_buckets(grams, rows, kept)
    params = fit(examples(rows, opinions, grams.only(chosen)), Options(rows=len(chosen), seed=seed), progress)
    return quantised(params, chosen)


def opinions_of(logits: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """The teacher's probabilities; of noise, that nothing is likelier than anything else."""
    found = teacher.distributions(logits)
    even = np.repeat(1 / np.array(HEADS), HEADS)
    found[[row.source == "noise" for row in rows]] = np.tile(even, 2)
    return found


def kept_buckets(grams: Grams, rows: Sequence[Row], count: int) -> np.ndarray:
    """Shape (count,), ascending: the buckets that most messages have, each message counted by its source's weight."""
    weights = np.array([WEIGHTS.get(row.source, 1.0) for row in rows])
    owners = np.repeat(np.arange(len(grams)), np.diff(grams.offsets))
    pairs = np.unique(owners.astype(np.int64) * BUCKETS + grams.buckets)
    frequency = np.bincount(pairs % BUCKETS, weights[pairs // BUCKETS], BUCKETS)
    return np.sort(np.argsort(-frequency, kind="stable")[:count]).astype(np.int32)


def targets_of(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Shapes (n, labels) and (n, heads): the labels, and which heads have one."""
    targets = np.zeros((len(rows), _LABELS), np.float32)
    weights = np.zeros((len(rows), len(HEADS)), np.float32)
    for number, row in enumerate(rows):
        for head, label in enumerate((row.tone, row.intent, row.topic)):
            if label:
                targets[number, sum(HEADS[:head]) + LABELS[head].index(label)] = 1
                weights[number, head] = 1
    return targets, weights


def balanced(targets: np.ndarray, weights: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """Weights by which, within each source, rare labels count more."""
    sources = np.array([row.source for row in rows])
    found = weights.copy()
    for source in np.unique(sources):
        for head, size in enumerate(HEADS):
            chosen = (sources == source) & (weights[:, head] > 0)
            if chosen.any():
                labels = targets[chosen, sum(HEADS[:head]) : sum(HEADS[:head]) + size]
                share = labels.mean(0)
                factor = np.where(share > 0, np.maximum(share, 1e-6) ** -BALANCE, 0)
                found[chosen, head] = labels @ (factor / (factor @ share)) * LABEL_WEIGHTS.get(str(source), 1.0)
    return found


def quantised(params: Params, kept: np.ndarray) -> Weights:
    """The embeddings as bytes, each dimension in steps of its own."""
    embedding = np.asarray(params["embedding"])[:-1]
    scale = np.quantile(np.abs(embedding), 0.9995, axis=0) / 127
    bitmap = np.zeros(BUCKETS, dtype=np.uint8)
    bitmap[kept] = 1
    layers = {name: np.asarray(value, np.float32) for name, value in params.items() if name != "embedding"}
    return Weights(
        kept=np.packbits(bitmap),
        embedding=np.clip(np.rint(embedding / scale), -127, 127).astype(np.int8),
        scale=scale.astype(np.float32),
        abstain=np.zeros((), np.float32),
        **layers,
    )


def changed(weights: Weights, factors: np.ndarray, shifts: np.ndarray) -> Weights:
    """With every column multiplied, and then shifted; shapes (COLUMNS,)."""
    return replace(
        weights,
        out=(weights.out * factors).astype(np.float32),
        skip=(weights.skip * factors).astype(np.float32),
        bias=(weights.bias * factors + shifts).astype(np.float32),
    )
