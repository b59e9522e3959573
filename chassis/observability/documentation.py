"""`make telemetry`: fills the lists of docs/telemetry.md from chassis.telemetry; the rest is written on the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from chassis.telemetry import ATTRIBUTES, LOG_FIELDS, METRICS, SPANS, Metric, SpanType

PAGE: Final = Path(__file__).parents[2] / "docs" / "telemetry.md"
_LIST: Final = re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with each list between its marks, such as `<!-- spans -->` and `<!-- /spans -->`, as it is declared."""
    lists = {
        "spans": "\n".join(_span(span) for span in SPANS),
        "attributes": _table(("Attribute", "What it says"), ((_code(key), text) for key, text in ATTRIBUTES.items())),
        "metrics": _table(
            ("Metric", "In Prometheus", "Kind", "Made by", "What it counts or measures", "Attributes"),
            (_metric(metric) for metric in METRICS),
        ),
        "buckets": _table(
            ("Histogram", "Upper bounds"),
            ((_code(metric.name), " ".join(f"{bound:g}" for bound in metric.buckets)) for metric in _histograms()),
        ),
        "log_fields": _table(("Field", "What it says"), ((_code(key), text) for key, text in LOG_FIELDS.items())),
    }
    return _LIST.sub(lambda marked: f"{marked[1]}\n{lists[marked[2]]}\n{marked[3]}", page)


def _span(span: SpanType) -> str:
    links = f"Links: {span.links}\n" if span.links else ""
    return (
        f"### `{span.name}`\n{span.kind.name}, made by {_services(span.where)}. {span.description}\n{links}\n"
        f"{', '.join(_code(key) for key in span.attributes)}\n"
    )


def _metric(metric: Metric) -> Sequence[str]:
    return (
        _code(metric.name),
        _code(metric.prometheus_name),
        f"{metric.instrument}, {metric.unit.strip('{}')}",
        _services(metric.where),
        metric.description,
        " ".join(_code(key) for key in metric.attributes),
    )


def _histograms() -> list[Metric]:
    return [metric for metric in METRICS if metric.buckets]


def _services(where: str) -> str:
    return "every service" if where == "all" else where


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _code(name: str) -> str:
    return f"`{name}`"


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
