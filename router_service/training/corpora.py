"""The labelled messages that the reader learns from, and under which licence each source stands."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from router_service.analysis.reader import SUBJECTS
from router_service.analysis.vocabulary import READ_INTENTS, TONES
from router_service.punctuation import without_punctuation

LABELS: Final = (TONES, READ_INTENTS, SUBJECTS)
OWN: Final = Path(__file__).parent / "corpus" / "ion.tsv"
# SPDX identifiers; attributions stand in the model card.
LICENCES: Final = {
    "goemo": "CC-BY-4.0",
    "goemo_ko_mt": "Apache-2.0 AND CC-BY-4.0",
    "kote": "MIT",
    "3i4k": "CC-BY-SA-4.0",
    "stylekqc": "CC-BY-SA-4.0",
    "mrda": "CC-BY-4.0 AND GPL-3.0-only",
    "seed": "CC0-1.0",
    "ion": "CC0-1.0",
}
# Of the own corpus, who wrote it and what it is about are held back for the dev split, never single rows.
DEV_STYLES: Final = frozenset({"ko_career_changer", "en_gamer_dev"})
DEV_SUBJECTS: Final = frozenset({"mobile", "thesis", "security"})
TEST_STYLES: Final = frozenset({"ko_user_a", "ko_user_b", "en_user_a", "en_user_b"})


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled message. An empty label was not annotated."""

    text: str
    language: str
    source: str
    tone: str
    intent: str
    topic: str = ""
    subject: str = ""
    style: str = ""

    @property
    def split(self) -> str:
        """train, dev or test, of a row of the own corpus."""
        if self.style in TEST_STYLES:
            return "test"
        return "dev" if self.style in DEV_STYLES or self.subject in DEV_SUBJECTS else "train"


def read_rows(path: Path) -> list[Row]:
    """The rows of a TSV file, plain or gzipped, by the names in its header. A line break in a text is written `\\n`."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        return [
            Row(
                row["text"].replace("\\n", "\n"),
                row["lang"],
                row["source"],
                row["tone"],
                row["intent"],
                row.get("topic", ""),
                row.get("subject", ""),
                row.get("style", ""),
            )
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        ]


def own_rows(split: str) -> list[Row]:
    """The project's own corpus: its train, dev or test split."""
    return [row for row in read_rows(OWN) if row.split == split]


def leave_out(rows: Iterable[Row], sources: Iterable[str]) -> Iterator[Row]:
    """Those from other sources."""
    out = frozenset(sources)
    return (row for row in rows if row.source not in out)


def at_most(rows: Iterable[Row], most: Mapping[tuple[str, str], int], rng: np.random.Generator) -> Iterator[list[Row]]:
    """The rows by source and label, of each group at most so many, drawn at random."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.source, row.tone or row.intent), []).append(row)
    for key, group in sorted(groups.items()):
        yield [group[i] for i in rng.permutation(len(group))[: most.get(key, len(group))].tolist()]


# Sources without any punctuation, and what would end a sentence of each intent there.
_BARE: Final = {"3i4k", "stylekqc"}
_LAST_MARK: Final = {"inquiry": "?", "request": ".", "statement": ".", "expressive": "!", "": "."}


def other_writing(row: Row) -> Row:
    """The same message as somebody else would type it: without punctuation, or with it where a source has none."""
    if row.source in _BARE:
        return replace(row, text=row.text + _LAST_MARK[row.intent])
    return replace(row, text=without_punctuation(row.text))


def at_work(row: Row) -> bool:
    """Whether it comes from a chat at work, which is what the reader is for."""
    return row.source in {"ion", "seed"}
