"""`ion eval`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from chassis.settings import stop
from router_service import evaluation
from router_service.analysis.reader import Reader, WeightsError
from router_service.evaluation import (
    DIMENSIONS,
    Change,
    Difference,
    EvaluationError,
    LabelledMessage,
    Report,
    Scores,
    Slice,
)
from router_service.personas import DEFAULT_DIRECTORY, PersonaFileError, PersonaTable, load_personas
from router_service.routing import choose_all, signals_of
from standalone import show

CHUNK: Final = 1000  # messages
_HEADING: Final = 5  # letters of a label above a narrow column
_COLOURS: Final = {"tone": "tab:blue", "intent": "tab:orange"}
_DARK: Final = 0.6  # share from which a cell wants white figures

Read = dict[str, np.ndarray]  # probabilities by dimension


def evaluate(
    files: Sequence[Path], weights: Path | None, other: Path | None, plot: Path | None, *, nopunct: bool, as_json: bool
) -> None:
    """Score the reader on all files together, beside the other one where there is one. Exit status 2 where something
    given cannot be used."""
    try:
        _require_extra(plot)
        messages = [message for path in files for message in evaluation.read_tsv(path)]
        table = load_personas(DEFAULT_DIRECTORY)
        evaluation.check_personas(messages, table.names)
        readers = [Reader.load(path) for path in ((weights, other) if other else (weights,))]
    except (EvaluationError, PersonaFileError, WeightsError) as error:
        stop(str(error))
    messages += evaluation.stripped(messages) if nopunct else []
    reads = _read(readers, [message.text for message in messages])
    reports = [
        evaluation.report(reader.version, messages, read, _routed(reader, messages, table))
        for reader, read in zip(readers, reads, strict=True)
    ]
    differences = evaluation.compare(messages, *reads) if other else ()
    if as_json:
        show.as_json_line({"reports": reports, "differences": differences})
    else:
        show.out.print(_tables(reports, differences, [str(path or "shipped") for path in (weights, other)]))
    if plot:
        _write(plot, png(reports[0]))


def _require_extra(plot: Path | None) -> None:
    """Now rather than after all the reading."""
    evaluation.require("sklearn.metrics")
    if plot:
        evaluation.require("matplotlib.figure")


def _read(readers: Sequence[Reader], texts: Sequence[str]) -> list[Read]:
    """What each reader makes of all texts."""
    chunks = [texts[at : at + CHUNK] for at in range(0, len(texts), CHUNK)]
    work = [(reader, chunk) for reader in readers for chunk in chunks]
    watched = track(work, "reading", console=show.err, transient=True, disable=not show.err.is_terminal)
    parts = [reader.probabilities(chunk) for reader, chunk in watched]
    each = len(chunks)
    return [
        {
            dimension: np.concatenate([getattr(part, dimension) for part in parts[at : at + each]])
            for dimension in DIMENSIONS
        }
        for at in range(0, len(parts), each)
    ]


def _routed(reader: Reader, messages: Sequence[LabelledMessage], table: PersonaTable) -> dict[LabelledMessage, str]:
    """Which persona each message goes to that has personas."""
    asked = [message for message in messages if message.personas]
    if not asked:
        return {}
    texts = [message.text for message in asked]
    signals = [signals_of(analysis, text) for analysis, text in zip(reader.read_all(texts), texts, strict=True)]
    return {message: routing.persona for message, routing in zip(asked, choose_all(signals, table), strict=True)}


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        stop(f"{path}: {(error.strerror or 'cannot be written').lower()}")


# Tables


def _tables(reports: Sequence[Report], differences: Sequence[Slice[Difference]], names: Sequence[str]) -> Group:
    return Group(
        *(part for name, report in zip(names, reports, strict=False) for part in _report_tables(name, report)),
        *_comparison_tables(reports, differences, names),
    )


def _report_tables(name: str, report: Report) -> Iterator[RenderableType]:
    whole = report.slices[0]
    yield f"[bold]{escape(name)}[/bold]  version {escape(report.version)}, {whole.messages} messages"
    for dimension, labels in report.labels.items():
        if scores := whole.figures(dimension):
            yield _slices_table(dimension, report.slices)
            yield _confusion_table(dimension, labels, scores)
    if whole.persona:
        yield _personas_table(report.slices)


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    """Columns of words, then columns of figures."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in left:
        table.add_column(column, no_wrap=True)
    for column in right:
        table.add_column(column, justify="right")
    return table


def _slices_table(dimension: str, slices: Sequence[Slice[Scores]]) -> Table:
    targets = [f"at {target}" for target in evaluation.TARGETS]
    table = _table(
        f"{dimension}; last, coverage at an accuracy", ["slice"], ["n", "accuracy", "macro-F1", "ECE", *targets]
    )
    for each in slices:
        if scores := each.figures(dimension):
            figures = (f"{value:.3f}" for value in (scores.accuracy, scores.macro_f1, scores.ece))
            coverages = (f"{value:.1%}" for value in scores.coverage_at.values())
            table.add_row(escape(each.name), str(scores.n), *figures, *coverages)
    return table


def _personas_table(slices: Sequence[Slice[Scores]]) -> Table:
    table = _table("persona: routed to one that is right", ["slice"], ["n", "accuracy"])
    for each in slices:
        if each.persona:
            table.add_row(escape(each.name), str(each.persona.n), f"{each.persona.accuracy:.3f}")
    return table


def _confusion_table(dimension: str, labels: Sequence[str], scores: Scores) -> Table:
    table = _table(f"{dimension}: labelled (rows) and read as (columns)", [""], [label[:_HEADING] for label in labels])
    for row, (label, counts) in enumerate(zip(labels, scores.confusion, strict=True)):
        cells = (f"[bold]{count}[/bold]" if column == row else str(count) for column, count in enumerate(counts))
        table.add_row(label, *cells)
    return table


def _comparison_tables(
    reports: Sequence[Report], differences: Sequence[Slice[Difference]], names: Sequence[str]
) -> Iterator[Table]:
    if not differences:
        return
    first, second = reports
    for dimension in DIMENSIONS:
        if not differences[0].figures(dimension):
            continue
        title = f"{dimension}: {escape(names[1])} (second) against {escape(names[0])} (first)"
        table = _table(title, ["slice", "figure"], ["first", "second", "difference", "95 % interval"])
        for slices in zip(first.slices, second.slices, differences, strict=True):
            for row in _comparison_rows(dimension, *slices):
                table.add_row(*row)
        yield table


def _comparison_rows(
    dimension: str, first: Slice[Scores], second: Slice[Scores], differences: Slice[Difference]
) -> Iterator[tuple[str, ...]]:
    before, after, difference = (each.figures(dimension) for each in (first, second, differences))
    if not (isinstance(before, Scores) and isinstance(after, Scores) and isinstance(difference, Difference)):
        return
    yield escape(first.name), "accuracy", *_side_by_side(before.accuracy, after.accuracy, difference.accuracy)
    yield f"n = {before.n}", "macro-F1", *_side_by_side(before.macro_f1, after.macro_f1, difference.macro_f1)
    yield "", "ECE", *_side_by_side(before.ece, after.ece)


def _side_by_side(before: float, after: float, change: Change | None = None) -> tuple[str, ...]:
    interval = f"{change.low:+.3f} to {change.high:+.3f}" if change else ""
    return f"{before:.3f}", f"{after:.3f}", f"{after - before:+.3f}", interval


# Plot


def png(report: Report) -> bytes:
    """Four figures of the whole, as a PNG: the same bytes for the same report, whatever Matplotlib's settings."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with style.context("default"):
        figure = Figure(figsize=(11, 10), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        FigureCanvasAgg(figure)
        _draw(figure, report)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw(figure: Any, report: Report) -> None:
    whole = report.slices[0]
    found = {dimension: scores for dimension in DIMENSIONS if (scores := whole.figures(dimension))}
    top, bottom = figure.add_gridspec(2, 1, height_ratios=(1.15, 1))
    top, bottom = top.subgridspec(1, 2, width_ratios=(1.25, 1)), bottom.subgridspec(1, 2)
    for place, dimension in zip(top, DIMENSIONS, strict=True):
        _draw_confusion(figure.add_subplot(place), dimension, report.labels[dimension], found.get(dimension))
    upper, lower = bottom[0].subgridspec(2, 1, height_ratios=(3, 1), hspace=0.05)
    diagram = figure.add_subplot(upper)
    _draw_reliability(diagram, found)
    _draw_confidences(figure.add_subplot(lower, sharex=diagram), found)
    _draw_coverage(figure.add_subplot(bottom[1]), found)
    figure.suptitle(f"Reader {report.version}: {whole.messages} messages", parse_math=False)


def _draw_confusion(axes: Any, dimension: str, labels: Sequence[str], scores: Scores | None) -> None:
    axes.set_title(f"{dimension}: % of a label's messages read as")
    if scores is None:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no labels", ha="center")
        return
    counts = np.array(scores.confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if counts[row].any():
            colour = "white" if share > _DARK else "black"
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), [f"{label} ({n})" for label, n in zip(labels, counts.sum(axis=1), strict=True)])


def _draw_reliability(axes: Any, found: dict[str, Scores]) -> None:
    axes.plot((0, 1), (0, 1), color="grey", linestyle="--")
    for dimension, scores in found.items():
        points = [(each.confidence, each.accuracy) for each in scores.reliability if each.count]
        axes.plot(
            *zip(*points, strict=True),
            "o-",
            color=_COLOURS[dimension],
            clip_on=False,
            label=f"{dimension}, ECE {scores.ece:.3f}",
        )
    axes.set(title="Reliability", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.tick_params(labelbottom=False)
    axes.legend(loc="upper left")


def _draw_confidences(axes: Any, found: dict[str, Scores]) -> None:
    """A histogram over the bins of the calibration error."""
    for dimension, scores in found.items():
        edges = [scores.reliability[0].low, *(each.high for each in scores.reliability)]
        shares = [each.count / scores.n for each in scores.reliability]
        axes.stairs(shares, edges, fill=True, alpha=0.5, color=_COLOURS[dimension])
    axes.set(xlabel="confidence", ylabel="messages")
    axes.yaxis.set_major_formatter("{x:.0%}")


def _draw_coverage(axes: Any, found: dict[str, Scores]) -> None:
    for target in evaluation.TARGETS:
        axes.axhline(target, color="lightgrey", linestyle=":")
    for dimension, scores in found.items():
        axes.plot(
            *zip(*scores.curve, strict=True), ".-", color=_COLOURS[dimension], label=f"{dimension}, n = {scores.n}"
        )
    axes.set(title="Coverage and accuracy", xlabel="share of messages, most confident first", ylabel="accuracy")
    axes.set(xlim=(0, 1))
    axes.xaxis.set_major_formatter("{x:.0%}")
    axes.legend(loc="lower left")
