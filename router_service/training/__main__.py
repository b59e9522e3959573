"""`python -m router_service.training DATA`: from labelled messages to the reader's weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from router_service.analysis.reader import SHIPPED, save_weights
from router_service.training import calibrate, corpora, teacher, train
from router_service.training.corpora import LABELS, LICENCES, Row

SEED: Final = 0
FILES: Final = ("train.tsv.gz", "seed_synthetic.tsv")
DEV_FILE: Final = "dev.tsv.gz"
KEEP: Final = Path(".ion/training")  # the teacher's opinions, by what they follow from

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(epilog="Example:  python -m router_service.training data/tone --without CC-BY-SA-4.0 --out mine.npz")
def main(
    data: Annotated[Path, typer.Argument(metavar="DATA", help=f"Folder with {', '.join(FILES)} and {DEV_FILE}.")],
    out: Annotated[Path, typer.Option(help="Where the weights go; their manifest goes beside them.")] = SHIPPED,
    without: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A source or a licence to leave out; may be repeated.")
    ] = None,
    version: Annotated[str, typer.Option(help="The version to write into the manifest.")] = "1",
) -> None:
    """Fit the teacher, ask it about all messages, fit the student to its opinions, calibrate, write the weights."""
    left_out = _left_out(without or [])
    for name in (*FILES, DEV_FILE):
        if not (data / name).is_file():
            raise typer.BadParameter(f"{data}: has no {name}", param_hint="DATA")
    others = list(corpora.leave_out((row for name in FILES for row in corpora.read_rows(data / name)), left_out))
    dev = list(corpora.leave_out(corpora.read_rows(data / DEV_FILE), left_out))
    own, own_dev = (list(corpora.leave_out(corpora.own_rows(split), left_out)) for split in ("train", "dev"))
    licences = _licences((*own, *others))
    rng = np.random.default_rng(SEED)
    lesson = teacher.lesson(own, others, rng)
    rows = train.curriculum(own, others, rng)
    with _progress() as progress:
        opinions = train.opinions_of(_opinions(lesson, rows, progress), rows)
        unasked = train.unasked(rows, others)
        weights = train.student_of(rows, opinions, unasked, _bar(progress, "student"), SEED)
    weights = calibrate.calibrated(weights, dev, own_dev)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(weights, out, version=version, trained_on=licences, licence_notice="LICENSES.md")


def _left_out(names: Sequence[str]) -> set[str]:
    found = set()
    for name in names:
        sources = {source for source, licence in LICENCES.items() if name == source or name in licence.split(" AND ")}
        if not sources:
            known = ", ".join(
                sorted({*LICENCES, *(part for text in LICENCES.values() for part in text.split(" AND "))})
            )
            raise typer.BadParameter(f"{name!r} is neither a source nor a licence: {known}", param_hint="--without")
        found |= sources
    return found


def _licences(rows: Sequence[Row]) -> dict[str, str]:
    """Of the sources of the rows; asked before anything is fitted, which takes half an hour."""
    sources = sorted({row.source for row in rows})
    for source in sources:
        if source not in LICENCES:
            raise typer.BadParameter(f"{source!r} is a source without a licence: name it in corpora.LICENCES")
    return {source: LICENCES[source] for source in sources}


def _opinions(lesson: Sequence[Row], rows: Sequence[Row], progress: Progress) -> np.ndarray:
    """The teacher's, kept for the next time."""
    kept = KEEP / f"{_digest(lesson, rows)}.npy"
    if not kept.exists():
        from router_service.training import encoder  # a file of 70 MB

        pupil = encoder.load()
        params = teacher.fit(pupil, lesson, SEED, _bar(progress, "teacher"))
        found = teacher.opinions(pupil, params, [row.text for row in rows], _bar(progress, "opinions"))
        KEEP.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(".part.npy")
        np.save(unfinished, found)
        unfinished.replace(kept)  # a run that is ended here leaves no half of them behind
    opinions: np.ndarray = np.load(kept)
    return opinions


def _digest(*parts: Sequence[Row]) -> str:
    """Of the rows, and of the code that makes opinions of them."""
    digest = hashlib.sha256(repr((LABELS, SEED)).encode())  # columns are in the order of the labels
    for name in ("teacher.py", "encoder.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    for rows in parts:
        for row in rows:
            digest.update("\t".join(astuple(row)).encode("utf-8", "surrogatepass") + b"\n")
        digest.update(b"\f")
    return digest.hexdigest()[:16]


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<8}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True))


def _bar(progress: Progress, name: str) -> teacher.Progress:
    task = progress.add_task(name, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)


if __name__ == "__main__":
    app()
