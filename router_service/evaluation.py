"""How well the reader reads: figures over labelled messages, of the whole and by slice.

What is judged is the likeliest label, before the reader abstains. Throughout, `truth`, shape (n,), holds label indices
and `probabilities`, shape (n, labels), rows that sum to 1, for n > 0; confidence is a row's largest probability.
"""

from __future__ import annotations

import gzip
import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import numpy as np

from router_service.analysis import READ_INTENTS, TONES
from router_service.punctuation import without_punctuation

DIMENSIONS: Final[Mapping[str, tuple[str, ...]]] = {"tone": TONES, "intent": READ_INTENTS}
BINS: Final = 15  # of the calibration error
TARGETS: Final = (0.8, 0.9, 0.95)  # accuracies whose coverage is reported
CURVE_POINTS: Final = 100  # of a reported curve, at most
RESAMPLES: Final = 1000  # of the bootstrap
SEED: Final = 0

_NOT_ANNOTATED: Final = -1
_FILLED: Final = ("lang", "source", "text")
_COLUMNS: Final = ("lang", "source", *DIMENSIONS, "text")
_PERSONAS: Final = "personas"  # a column that may be there
_SHOWN: Final = 40  # characters of a wrong value
_GZIP: Final = b"\x1f\x8b"

T = TypeVar("T")


class EvaluationError(Exception):
    """One line that says what is wrong, where, and what would be right."""


def require(module: str) -> Any:
    """A module of the optional extra. Raises EvaluationError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EvaluationError(f"{error.name} is not installed: pip install 'ion-chat[eval]'") from error


# Labelled messages


@dataclass(frozen=True, slots=True)
class LabelledMessage:
    """A message with a tone, an intent or names of personas, of which each is right; "" and () were not annotated.
    `stripped` is one that another has become without its punctuation."""

    text: str
    language: str
    source: str
    tone: str
    intent: str
    personas: tuple[str, ...] = ()
    stripped: bool = False


def read_tsv(path: Path) -> list[LabelledMessage]:
    """The messages of a file, as `parse_tsv`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EvaluationError(f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    return parse_tsv(data, str(path))


def parse_tsv(data: bytes, name: str) -> list[LabelledMessage]:
    r"""The messages of a TSV, plain or gzipped. Columns go by the header, others are ignored, nothing is quoted, and a
    line break in a text is written `\n`. Raises EvaluationError that names file and line.
    """
    header, *lines = [line.removesuffix("\r").split("\t") for line in _decoded(data, name).split("\n")]
    if lacking := [column for column in _COLUMNS if column not in header]:
        raise EvaluationError(
            f"{name}:1: must be TAB-separated names, among them {_list(_COLUMNS)}; lacks {_list(lacking)}"
        )
    messages = [
        _message(header, cells, f"{name}:{number}") for number, cells in enumerate(lines, start=2) if cells != [""]
    ]
    if not messages:
        raise EvaluationError(f"{name}:2: must be a labelled message")
    return messages


def _decoded(data: bytes, name: str) -> str:
    try:
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise EvaluationError(f"{name}:{line}: must be UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise EvaluationError(f"{name}: must be a whole gzip file") from error


def _message(header: list[str], cells: list[str], where: str) -> LabelledMessage:
    if len(cells) != len(header):
        raise EvaluationError(f"{where}: must have {len(header)} columns as the header has; has {len(cells)}")
    row = dict(zip(header, cells, strict=True))
    if problem := _problem(row):
        raise EvaluationError(f"{where}: {problem}")
    personas = tuple(filter(None, map(str.strip, row.get(_PERSONAS, "").replace("|", ",").split(","))))
    text = row["text"].replace("\\n", "\n")
    return LabelledMessage(text, row["lang"], row["source"], row["tone"], row["intent"], personas)


def _problem(row: Mapping[str, str]) -> str:
    """What is wrong with a row; "" where nothing is."""
    for column in _FILLED:
        if not row[column].strip():
            return f"{column} must not be empty"
    for dimension, labels in DIMENSIONS.items():
        if row[dimension] not in ("", *labels):
            return f"{dimension} must be one of {_list(labels)}, or empty; is {row[dimension][:_SHOWN]!r}"
    labelled = any(row.get(column, "").strip() for column in (*DIMENSIONS, _PERSONAS))
    return "" if labelled else f"must have a {' or an '.join(DIMENSIONS)}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def check_personas(messages: Sequence[LabelledMessage], names: Sequence[str]) -> None:
    """Raises EvaluationError where a message asks for a persona that is not among the names."""
    if unknown := sorted({name for message in messages for name in message.personas}.difference(names)):
        raise EvaluationError(f"personas must be of {_list(names)}; one is {unknown[0][:_SHOWN]!r}")


def stripped(messages: Sequence[LabelledMessage]) -> list[LabelledMessage]:
    """The same messages without punctuation, as of the sources `<source>_nopunct`."""
    return [
        replace(each, text=without_punctuation(each.text), source=f"{each.source}_nopunct", stripped=True)
        for each in messages
    ]


def truth_of(messages: Sequence[LabelledMessage], dimension: str) -> np.ndarray:
    """Shape (messages,): the index of each label, -1 where there is none."""
    index = {label: number for number, label in enumerate(DIMENSIONS[dimension])} | {"": _NOT_ANNOTATED}
    return np.array([index[getattr(message, dimension)] for message in messages], dtype=np.intp)


# Metrics


def predicted(probabilities: np.ndarray) -> np.ndarray:
    """Shape (n,): the likeliest label, the first of equals."""
    labels: np.ndarray = np.argmax(probabilities, axis=1)
    return labels


def accuracy(truth: np.ndarray, probabilities: np.ndarray) -> float:
    return float(require("sklearn.metrics").accuracy_score(truth, predicted(probabilities)))


def macro_f1(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """The mean F1 of the labels that occur in `truth`. A label that is only predicted has no F1 of its own here; it
    costs the recall of the labels it was mistaken for."""
    f1_score = require("sklearn.metrics").f1_score
    labels = np.unique(truth)
    return float(f1_score(truth, predicted(probabilities), labels=labels, average="macro", zero_division=0))


def confusion_matrix(truth: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Shape (labels, labels): how many messages of a row's label were read as a column's."""
    labels = np.arange(probabilities.shape[1])
    matrix: np.ndarray = require("sklearn.metrics").confusion_matrix(truth, predicted(probabilities), labels=labels)
    return matrix


@dataclass(frozen=True, slots=True)
class Bin:
    """The messages of confidence in (low, high]: their number, mean confidence and accuracy, 0 where there are none."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> tuple[Bin, ...]:
    """Confidence beside accuracy in bins of equal width."""
    confidence = probabilities.max(axis=1)
    edges = np.arange(bins + 1) / bins
    places = np.searchsorted(edges[1:-1], confidence, side="left")
    counts, confidences, rights = (
        np.bincount(places, weights=weights, minlength=bins)
        for weights in (None, confidence, predicted(probabilities) == truth)
    )
    filled = np.maximum(counts, 1)
    columns = (edges[:-1], edges[1:], counts, confidences / filled, rights / filled)
    return tuple(Bin(*values) for values in zip(*(column.tolist() for column in columns), strict=True))


def expected_calibration_error(bins: Sequence[Bin]) -> float:
    """The mean distance between confidence and accuracy over the bins, weighted by their messages."""
    return sum(each.count * abs(each.accuracy - each.confidence) for each in bins) / sum(each.count for each in bins)


def coverage_curve(truth: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The share of messages at or above a confidence, and the accuracy among them, for every confidence, falling.
    Equally confident messages are one point: no threshold parts them."""
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    rights = np.cumsum((predicted(probabilities) == truth)[order])
    last = np.flatnonzero(np.append(np.diff(confidence[order]) != 0, True))
    return (last + 1) / len(truth), rights[last] / (last + 1)


def coverage_at(curve: tuple[np.ndarray, np.ndarray], target: float) -> float:
    """The largest coverage at which accuracy reaches the target; 0 where it never does."""
    coverage, accuracies = curve
    return float(coverage[accuracies >= target].max(initial=0.0))


# Reports


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one dimension over n messages. `confusion` has a row a true label; `curve` is a thinned
    `coverage_curve`, as (coverage, accuracy); `coverage_at` goes by the accuracy reached."""

    n: int
    accuracy: float
    macro_f1: float
    ece: float
    coverage_at: dict[str, float]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[Bin, ...]
    curve: tuple[tuple[float, float], ...]


def scores(truth: np.ndarray, probabilities: np.ndarray) -> Scores:
    curve = coverage_curve(truth, probabilities)
    bins = reliability(truth, probabilities)
    return Scores(
        n=len(truth),
        accuracy=accuracy(truth, probabilities),
        macro_f1=macro_f1(truth, probabilities),
        ece=expected_calibration_error(bins),
        coverage_at={str(target): coverage_at(curve, target) for target in TARGETS},
        confusion=tuple(map(tuple, confusion_matrix(truth, probabilities).tolist())),
        reliability=bins,
        curve=_thinned(curve),
    )


def _thinned(curve: tuple[np.ndarray, np.ndarray]) -> tuple[tuple[float, float], ...]:
    """For every hundredth of coverage the first point that reaches it."""
    coverage, accuracies = curve
    kept = np.unique(np.searchsorted(coverage, np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS))
    return tuple(zip(coverage[kept].tolist(), accuracies[kept].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Routed:
    """The share of n messages that went to one of their personas."""

    n: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """Figures of the messages of a language and a source, None being any; a dimension without labels there has None.
    Stripped messages are in the slices of their sources alone."""

    language: str | None
    source: str | None
    messages: int
    tone: T | None
    intent: T | None
    persona: Routed | None = None

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.language, self.source))) or "all"

    def figures(self, dimension: str) -> T | None:
        found: T | None = getattr(self, dimension)
        return found


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of one reader: the whole first, then by language, by source, and by both."""

    version: str
    labels: Mapping[str, tuple[str, ...]]
    slices: tuple[Slice[Scores], ...]


def report(
    version: str,
    messages: Sequence[LabelledMessage],
    probabilities: Mapping[str, np.ndarray],
    routed: Mapping[LabelledMessage, str] = MappingProxyType({}),
) -> Report:
    """Scores of the probabilities by dimension that the reader of that version gave, at least one message. `routed`
    names the persona that each message with personas went to."""

    def figures(dimension: str, truth: np.ndarray, rows: np.ndarray) -> Scores:
        return scores(truth, probabilities[dimension][rows])

    slices = zip(_by_slice(messages, figures), _slices(messages), strict=True)
    return Report(
        version,
        DIMENSIONS,
        tuple(
            replace(each, persona=_routed([messages[row] for row in np.flatnonzero(within).tolist()], routed))
            for each, (_, _, within) in slices
        ),
    )


def _routed(messages: Sequence[LabelledMessage], routed: Mapping[LabelledMessage, str]) -> Routed | None:
    rights = [routed[message] in message.personas for message in messages if message in routed]
    return Routed(len(rights), sum(rights) / len(rights)) if rights else None


def _by_slice(
    messages: Sequence[LabelledMessage], figures: Callable[[str, np.ndarray, np.ndarray], T]
) -> tuple[Slice[T], ...]:
    """What `figures` makes of each dimension, its truth and the rows that have one."""
    truths = {dimension: truth_of(messages, dimension) for dimension in DIMENSIONS}
    slices = []
    for language, source, within in _slices(messages):
        found: dict[str, T | None] = {}
        for dimension, truth in truths.items():
            rows = np.flatnonzero(within & (truth != _NOT_ANNOTATED))
            found[dimension] = figures(dimension, truth[rows], rows) if len(rows) else None
        slices.append(Slice(language, source, int(within.sum()), found["tone"], found["intent"]))
    return tuple(slices)


def _slices(messages: Sequence[LabelledMessage]) -> Iterator[tuple[str | None, str | None, np.ndarray]]:
    languages = np.array([message.language for message in messages])
    sources = np.array([message.source for message in messages])
    pairs = sorted({(message.language, message.source) for message in messages})
    whole = np.array([not message.stripped for message in messages])
    yield None, None, whole
    for language in sorted({language for language, _ in pairs}):
        yield language, None, whole & (languages == language)
    for source in sorted({source for _, source in pairs}):
        yield None, source, sources == source
    for language, source in pairs:
        yield language, source, (languages == language) & (sources == source)


# Comparison


@dataclass(frozen=True, slots=True)
class Change:
    """By how much the second reader is above the first, and a 95 % interval of that."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    accuracy: Change
    macro_f1: Change


def compare(
    messages: Sequence[LabelledMessage], first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> tuple[Slice[Difference], ...]:
    """The second reader against the first on the same messages, in the slices of a report."""

    def figures(dimension: str, truth: np.ndarray, rows: np.ndarray) -> Difference:
        return difference(truth, first[dimension][rows], second[dimension][rows])

    return _by_slice(messages, figures)


def difference(truth: np.ndarray, first: np.ndarray, second: np.ndarray) -> Difference:
    """A paired bootstrap over messages, percentiles of RESAMPLES, the same for the same input. Each resample has the
    macro-F1 of the labels that occur in it.

    Drawing n messages with replacement is one multinomial draw over the distinct (truth, first, second), so that the
    work does not grow with n.
    """
    labels = first.shape[1]
    cells, counts = np.unique(np.stack((truth, predicted(first), predicted(second))), axis=1, return_counts=True)
    draws = np.random.default_rng(SEED).multinomial(len(truth), counts / len(truth), RESAMPLES)
    cell_truth, cell_first, cell_second = np.eye(labels, dtype=np.intp)[cells]
    return Difference(
        _change(
            accuracy(truth, second) - accuracy(truth, first),
            _accuracies(draws, cell_truth, cell_second) - _accuracies(draws, cell_truth, cell_first),
        ),
        _change(
            macro_f1(truth, second) - macro_f1(truth, first),
            _macro_f1s(draws, cell_truth, cell_second) - _macro_f1s(draws, cell_truth, cell_first),
        ),
    )


def _change(difference: float, resampled: np.ndarray) -> Change:
    low, high = np.percentile(resampled, (2.5, 97.5)).tolist()
    return Change(difference, low, high)


# Over draws, shape (resamples, cells), of cells with a one-hot truth and prediction, shape (cells, labels).


def _accuracies(draws: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    accuracies: np.ndarray = draws @ (truth * guess).sum(axis=1) / draws.sum(axis=1)
    return accuracies


def _macro_f1s(draws: np.ndarray, truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    occurs, guessed, right = draws @ truth, draws @ guess, draws @ (truth * guess)
    f1 = 2 * right / np.maximum(occurs + guessed, 1)
    means: np.ndarray = f1.sum(axis=1) / (occurs > 0).sum(axis=1)  # f1 is 0 where a label does not occur
    return means
