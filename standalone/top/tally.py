"""Values of metrics, of all processes together, and what can be asked of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

from chassis.telemetry import Metric
from standalone.top.looks import Series

Labels = Mapping[str, str]
Wanted = Callable[[Labels], bool]
# Upper bounds of buckets, and how many there are up to each; the last bound is infinite.
Buckets = Sequence[tuple[float, float]]


def label_of(attribute: str) -> str:
    """As Prometheus knows an attribute."""
    return attribute.replace(".", "_")


def _all(_: Labels) -> bool:
    return True


class Tally:
    """Series of several processes that are alike are summed where they are asked for."""

    def __init__(self, values: Iterable[tuple[Series, float]]) -> None:
        self._series: defaultdict[str, list[tuple[Labels, float]]] = defaultdict(list)
        for (name, labels), value in values:
            self._series[name].append((dict(labels), value))

    def has(self, metric: Metric) -> bool:
        """Of what is no histogram."""
        return metric.prometheus_name in self._series

    def sum(self, metric: Metric, wanted: Wanted = _all, *, suffix: str = "") -> float:
        """`suffix`: of a histogram, "_count" or "_sum"."""
        return sum(value for labels, value in self._of(metric, suffix) if wanted(labels))

    def by(self, metric: Metric, attribute: str, wanted: Wanted = _all, *, suffix: str = "") -> dict[str, float]:
        """Sums by the attribute's value; "" for series without it."""
        sums: defaultdict[str, float] = defaultdict(float)
        label = label_of(attribute)
        for labels, value in self._of(metric, suffix):
            if wanted(labels):
                sums[labels.get(label, "")] += value
        return dict(sums)

    def counts(self, metric: Metric, attribute: str) -> dict[str, int]:
        """How many series there are by the attribute's value."""
        return dict(Counter(labels.get(label_of(attribute), "") for labels, _ in self._of(metric, "")))

    def buckets(self, metric: Metric, wanted: Wanted = _all) -> Buckets:
        """Of a histogram."""
        sums: defaultdict[float, float] = defaultdict(float)
        for labels, value in self._of(metric, "_bucket"):
            if wanted(labels):
                sums[float(labels["le"])] += value
        return sorted(sums.items())

    def _of(self, metric: Metric, suffix: str) -> Sequence[tuple[Labels, float]]:
        return self._series.get(metric.prometheus_name + suffix, ())


def quantile(share: float, buckets: Buckets) -> float | None:
    """Below which `share` of what was counted is, as Prometheus guesses it: values lie evenly in their bucket, from 0
    on in the first; those beyond the last finite bound count as that. None where there were none."""
    bounds = [bound for bound, _ in buckets]
    counts = [count for _, count in buckets]
    if len(bounds) < 2 or bounds[-1] != inf or not counts[-1] > 0:
        return None
    rank = share * counts[-1]
    found = bisect_left(counts, rank)
    if found >= len(bounds) - 1:
        return bounds[-2]
    lower, below = (bounds[found - 1], counts[found - 1]) if found else (0.0, 0.0)
    inside = counts[found] - below
    return lower + (bounds[found] - lower) * (rank - below) / inside if inside else bounds[found]


def shares(numbers: Mapping[str, float]) -> dict[str, float]:
    """Of their sum, the largest first; nothing where that is 0."""
    total = sum(numbers.values())
    ordered = sorted(numbers.items(), key=lambda item: -item[1])
    return {name: number / total for name, number in ordered if number} if total else {}
