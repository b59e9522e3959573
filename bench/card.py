"""`make card DATA=...`: measures the shipped weights and fills their model card."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from rich.progress import track

from bench import reader as reading
from router_service import evaluation
from router_service.analysis.reader import SHIPPED, Reader
from router_service.personas import DEFAULT_DIRECTORY, PersonaTable, load_personas
from router_service.routing import choose_all, signals_of
from router_service.training import corpora
from router_service.training.corpora import LABELS, Row, other_writing
from standalone.evaluate import png

CARD: Final = SHIPPED.with_name("MODEL_CARD.md")
PLOT: Final = Path(__file__).parents[1] / "docs" / "reader.png"
FIGURES: Final = SHIPPED.with_name("figures.json")
_TABLE: Final = re.compile(r"(<!-- figures -->\n).*?(<!-- /figures -->)", re.DOTALL)
# What is told, what keywords and a linear model reach, what is asked for.
_ROWS: Final = (
    ("own held-back messages: right persona", "33 %", "49 %", ">= 85 %", "{held_back.persona:.1%}"),
    (
        "own held-back messages: tone / intent accuracy",
        "19 % / 45 %",
        "43 % / 67 %",
        ">= 75 % / >= 85 %",
        "{held_back.tone:.1%} / {held_back.intent:.1%}",
    ),
    ("own dev split: right persona", "", "", "", "{own_dev.persona:.1%}"),
    ("own dev split: tone / intent accuracy", "", "", "", "{own_dev.tone:.1%} / {own_dev.intent:.1%}"),
    ("samples/: right persona / tone accuracy", "", "", "", "{samples.persona:.1%} / {samples.tone:.1%}"),
    (
        "GoEmotions tone macro-F1, English / Korean with KOTE",
        ".22 / .19",
        ".64 / .59",
        ">= .70 / >= .64",
        "{goemo.macro_f1:.3f} / {korean.macro_f1:.3f}",
    ),
    ("3i4K intent macro-F1", ".13", ".83", ">= .87", "{3i4k.macro_f1:.3f}"),
    (
        "MRDA intent macro-F1, with / without punctuation",
        ".55 / .22",
        ".80 / .72",
        ">= .84 / >= .77",
        "{mrda.macro_f1:.3f} / {mrda_nopunct.macro_f1:.3f}",
    ),
    (
        "calibration error (tone), held-back / public dev",
        "-",
        ".04",
        "<= .03",
        "{held_back.calibration_error:.3f} / {public.calibration_error:.3f}",
    ),
    (
        "time for 100 characters, one core, median / P99, English",
        "9 µs",
        "80 / 186 µs",
        "<= 100 / <= 200 µs",
        "{time.english:.0f} / {time.english_p99:.0f} µs",
    ),
    ("the same, Korean", "", "", "", "{time.korean:.0f} / {time.korean_p99:.0f} µs"),
    ("batch of 1,000 messages, per message", "", "", "<= 30 µs", "{time.batch:.0f} µs"),
    ("weights, load time", "", "1.9 MB", "<= 4 MB, <= 50 ms", "{size.megabytes:.2f} MB, {time.load:.0f} ms"),
)


def main(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder with dev.tsv.gz.")],
    samples: Annotated[Path, typer.Option(help="Folder with messages.jsonl and expected.jsonl.")] = Path("samples"),
) -> None:
    """Measure the shipped weights on the dev splits and the own corpus; write figures.json, the table and the plot."""
    reader, personas = Reader.load(), load_personas(DEFAULT_DIRECTORY)
    steps: tuple[Callable[[], dict[str, dict[str, float]]], ...] = (
        lambda: public_figures(reader, corpora.read_rows(data / "dev.tsv.gz")),
        lambda: own_figures(reader, personas),
        lambda: {"samples": sample_figures(reader, personas, samples)},
    )
    figures: dict[str, dict[str, float]] = {}
    for step in track(steps, "measuring"):
        figures |= step()
    rounded = {name: {key: round(value, 4) for key, value in group.items()} for name, group in sorted(figures.items())}
    FIGURES.write_text(json.dumps(rounded, indent=2) + "\n", encoding="utf-8")
    filled = table(figures | {"time": times(), "size": {"megabytes": SHIPPED.stat().st_size / 1e6}})
    PLOT.write_bytes(plot(reader))
    CARD.write_text(_TABLE.sub(rf"\1{filled}\2", CARD.read_text(encoding="utf-8")), encoding="utf-8")


def public_figures(reader: Reader, dev: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Figures by set, of the public dev splits; a set without rows is left out."""
    by_source = {source: [row for row in dev if row.source == source] for source in {row.source for row in dev}}
    sets = {
        "goemo": by_source.get("goemo", []),
        "korean": [*by_source.get("goemo_ko_mt", []), *by_source.get("kote", [])],
        "3i4k": by_source.get("3i4k", []),
        "mrda": by_source.get("mrda", []),
        "mrda_nopunct": [other_writing(row) for row in by_source.get("mrda", [])],
        "public": [row for row in dev if row.tone],
    }
    return {name: scores(reader, rows, 0 if rows[0].tone else 1) for name, rows in sets.items() if rows}


def own_figures(reader: Reader, personas: PersonaTable) -> dict[str, dict[str, float]]:
    """Of the own corpus's dev split, and of the part held back from training and calibration."""
    figures = {}
    for name, split in (("own_dev", "dev"), ("held_back", "test")):
        rows = corpora.own_rows(split)
        tone, intent = scores(reader, rows, 0), scores(reader, rows, 1)
        right = [_preferring(personas, row.tone) for row in rows]
        figures[name] = {
            "persona": persona_accuracy(reader, personas, [row.text for row in rows], right),
            "tone": tone["accuracy"],
            "intent": intent["accuracy"],
            "calibration_error": tone["calibration_error"],
        }
    return figures


def sample_figures(reader: Reader, personas: PersonaTable, folder: Path) -> dict[str, float]:
    messages = {each["id"]: each["message"] for each in _json_lines(folder / "messages.jsonl")}
    expected = [each for each in _json_lines(folder / "expected.jsonl") if each["id"] in messages]
    texts = [messages[each["id"]] for each in expected]
    read = [analysis.tone.primary for analysis in reader.read_all(texts)]
    return {
        "persona": persona_accuracy(reader, personas, texts, [set(each["personas"]) for each in expected]),
        "tone": float(np.mean([tone == each["tone"] for tone, each in zip(read, expected, strict=True)])),
    }


def plot(reader: Reader) -> bytes:
    """A PNG of the own messages that the reader has not learnt from."""
    rows = [row for split in ("dev", "test") for row in corpora.own_rows(split)]
    messages = [evaluation.LabelledMessage(row.text, row.language, row.source, row.tone, row.intent) for row in rows]
    found = reader.probabilities([row.text for row in rows])
    return png(evaluation.report(reader.version, messages, {"tone": found.tone, "intent": found.intent}))


def scores(reader: Reader, rows: Sequence[Row], head: int) -> dict[str, float]:
    truth = np.array([LABELS[head].index((row.tone, row.intent)[head]) for row in rows])
    found = reader.probabilities([row.text for row in rows])
    each = evaluation.scores(truth, (found.tone, found.intent)[head])
    return {"accuracy": each.accuracy, "macro_f1": each.macro_f1, "calibration_error": each.ece}


def persona_accuracy(reader: Reader, personas: PersonaTable, texts: Sequence[str], right: Sequence[set[str]]) -> float:
    """The share of texts that are routed to one of their right personas."""
    signals = [signals_of(*pair) for pair in zip(reader.read_all(texts), texts, strict=True)]
    chosen = (routing.persona for routing in choose_all(signals, personas))
    return float(np.mean([persona in names for persona, names in zip(chosen, right, strict=True)]))


def _preferring(personas: PersonaTable, tone: str) -> set[str]:
    """Who answers that tone best."""
    return {persona.name for persona in personas.personas if tone in persona.preferred_tones}


def times() -> dict[str, float]:
    """Microseconds on one core; the load, of fresh processes, in milliseconds."""
    steps = reading.measure()
    found = {"load": steps["load of the weights, fresh process"] / 1000}
    for step, micros in steps.items():
        if match := re.fullmatch(r"read, \d+ characters (\w+)(, P99)?", step):
            found[match[1].lower() + ("_p99" if match[2] else "")] = micros
        elif step.startswith(f"read {reading.BATCH} at once, samples"):
            found["batch"] = micros
    return found


def table(figures: dict[str, dict[str, float]]) -> str:
    lines = ["| | keywords | linear floor | reach | here |", "|---|---|---|---|---|"]
    flat = {f"{name}.{key}": value for name, group in figures.items() for key, value in group.items()}
    for *cells, shown in _ROWS:
        filled = re.sub(r"\{(\S+?):(\S+?)\}", lambda part: format(flat[part[1]], part[2]), shown)
        lines.append(f"| {' | '.join((*cells, filled))} |")
    return "\n".join(lines) + "\n"


def _json_lines(path: Path) -> Iterable[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


if __name__ == "__main__":
    typer.run(main)
