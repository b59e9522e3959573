"""Makes the student's probabilities mean what they say, and its rare labels as findable as its common ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from router_service.analysis.reader import COLUMNS, HEADS, Reader, Weights, blend
from router_service.training.corpora import LABELS, Row, other_writing
from router_service.training.train import changed

ABSTAIN: Final = 0.25
_LABELS: Final = sum(HEADS)
_STEPS: Final = np.arange(-12, 13) / 8  # what a label's bias is tried to be changed by
_PRICE: Final = 0.003  # in macro-F1, of a bias of 1: what gains little is not worth its cost in calibration
_ROUNDS: Final = 3
_TEMPERATURES: Final = np.exp(np.linspace(np.log(0.4), np.log(3.0), 60))
# The sources by whose mean macro-F1 the biases in general are set, by head.
_MEANS: Final = ({"goemo": ("goemo",), "korean": ("goemo_ko_mt", "kote")}, {"3i4k": ("3i4k",), "mrda": ("mrda",)})


def calibrated(weights: Weights, dev: Sequence[Row], own_dev: Sequence[Row]) -> Weights:
    """Biases in general by the public dev splits; then a temperature a head, in general by those and at work by the
    own corpus's. Sources of one head and language count alike, whatever their size."""
    for head in (0, 1):
        shifts = np.zeros(COLUMNS)
        first = sum(HEADS[:head])
        groups = _groups(dev, head)
        reader = Reader(weights)
        found = {name: reader.columns([row.text for row in rows]) for name, rows in groups.items()}
        truth = {name: _truth(rows, head) for name, rows in groups.items()}
        shifts[first : first + HEADS[head]] = _biases(found, truth, first, HEADS[head])
        weights = changed(weights, np.ones(COLUMNS), shifts)
    factors = np.ones(COLUMNS)
    for side, rows in ((0, dev), (_LABELS, own_dev)):
        for head in range(len(HEADS)):
            labelled = [row for row in rows if (row.tone, row.intent, row.topic)[head]]
            if labelled:
                first = sum(HEADS[:head])
                columns = Reader(weights).columns([row.text for row in labelled])
                temperature = _temperature(_logits(columns, first, HEADS[head]), _truth(labelled, head))
                factors[side + first : side + first + HEADS[head]] = 1 / temperature
    return replace(changed(weights, factors, np.zeros(COLUMNS)), abstain=np.asarray(ABSTAIN, np.float32))


def _groups(dev: Sequence[Row], head: int) -> dict[str, list[Row]]:
    groups = {
        name: [row for row in dev if row.source in sources and (row.tone, row.intent)[head]]
        for name, sources in _MEANS[head].items()
    }
    if groups.get("mrda"):
        groups["mrda_nopunct"] = [other_writing(row) for row in groups["mrda"]]
    return {name: rows for name, rows in groups.items() if rows}


def _truth(rows: Sequence[Row], head: int) -> np.ndarray:
    return np.array([LABELS[head].index((row.tone, row.intent, row.topic)[head]) for row in rows])


def _logits(columns: np.ndarray, first: int, size: int) -> np.ndarray:
    return blend(columns)[:, first : first + size]


def _biases(columns: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], first: int, size: int) -> np.ndarray:
    """By coordinate ascent, label after label."""
    logits = {name: _logits(each, first, size) for name, each in columns.items()}
    shares = {name: 1 - 1 / (1 + np.exp(-each[:, -1:])) for name, each in columns.items()}

    def score(biases: np.ndarray) -> float:
        each = [macro_f1(truth[name], (logits[name] + shares[name] * biases).argmax(1), size) for name in logits]
        return float(np.mean(each)) - _PRICE * float(np.abs(biases).sum()) if each else 0.0

    return _ascent(score, np.zeros(size))


def _ascent(score: Callable[[np.ndarray], float], biases: np.ndarray) -> np.ndarray:
    for _ in range(_ROUNDS):
        for label in range(len(biases)):
            tried = [biases + step * np.eye(len(biases))[label] for step in sorted(_STEPS, key=abs)]
            biases = max(tried, key=score)
    return biases


def macro_f1(truth: np.ndarray, guess: np.ndarray, size: int) -> float:
    """As that of `evaluation`, without scikit-learn and its checks: this is asked for thousands of times."""
    table = np.zeros((size, size))
    np.add.at(table, (truth, guess), 1)
    both = table.sum(0) + table.sum(1)
    f1 = 2 * np.diag(table) / np.maximum(both, 1)
    return float(f1[table.sum(1) > 0].mean())


def _temperature(logits: np.ndarray, truth: np.ndarray) -> float:
    """Of those tried, the one under which the labels are likeliest."""

    def surprise(temperature: float) -> float:
        scaled = logits / temperature
        most = scaled.max(1, keepdims=True)
        normal = most[:, 0] + np.log(np.exp(scaled - most).sum(1))
        return float((normal - scaled[np.arange(len(truth)), truth]).mean())

    return float(min(_TEMPERATURES, key=surprise))
