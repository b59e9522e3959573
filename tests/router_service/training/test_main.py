"""`python -m router_service.training`: what is left out stays out, and what went in is named."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from router_service.analysis.reader import HEADS, Reader
from router_service.training import __main__ as command
from router_service.training import calibrate, corpora, encoder, student, teacher, train
from router_service.training.corpora import LICENCES, Row
from tests.router_service.training.small_encoder import small_encoder

HEADER = "text\tlang\tsource\ttone\tintent\n"
PUBLIC = {
    "goemo": ("calm", ""),
    "goemo_ko_mt": ("playful", ""),
    "kote": ("anxious", ""),
    "3i4k": ("", "inquiry"),
    "stylekqc": ("", "request"),
    "mrda": ("", "statement"),
}
student_of = train.student_of
OWN = {split: [row for row in corpora.own_rows(split) if len(row.text.split()) < 5] for split in ("train", "dev")}


def lines(sources, number):
    return HEADER + "".join(
        f"{source} message {n}\ten\t{source}\t{tone}\t{intent}\n"
        for source, (tone, intent) in sources.items()
        for n in range(number)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    (folder / "train.tsv.gz").write_bytes(gzip.compress(lines(PUBLIC, 6).encode()))
    (folder / "dev.tsv.gz").write_bytes(gzip.compress(lines(PUBLIC, 3).encode()))
    (folder / "seed_synthetic.tsv").write_text(lines({"seed": ("urgent", "request")}, 6), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    """Few rows of the own corpus, little beside them, and opinions that are kept elsewhere."""
    monkeypatch.setattr(command, "KEEP", tmp_path / "opinions")
    monkeypatch.setattr(corpora, "own_rows", lambda split: OWN[split][:60])
    monkeypatch.setattr(train, "RECOMBINED", 20)
    monkeypatch.setattr(train, "NOISE", 5)


def weights():
    return train.quantised(student.initial(student.Options(10, width=4, over_words=3, hidden=2)), np.arange(10))


@pytest.fixture
def spied(monkeypatch):
    """What reaches the teacher, the student and the calibration."""
    seen = defaultdict(list)

    def fit(pupil, lesson, seed, progress):
        seen["lesson"].append(list(lesson))

    def opinions(pupil, params, texts, progress):
        seen["asked"].append(list(texts))
        return np.zeros((len(texts), teacher.COLUMNS), np.float16)

    def student_of(rows, opinions, unasked, progress, seed):
        seen["rows"].append(list(rows))
        seen["unasked"].append(list(unasked))
        assert opinions.shape == (len(rows), 2 * sum(HEADS))
        return weights()

    def calibrated(given, dev, own_dev):
        seen["dev"].append(list(dev))
        seen["own_dev"].append(list(own_dev))
        return given

    monkeypatch.setattr(encoder, "load", lambda: None)
    monkeypatch.setattr(teacher, "fit", fit)
    monkeypatch.setattr(teacher, "opinions", opinions)
    monkeypatch.setattr(train, "student_of", student_of)
    monkeypatch.setattr(calibrate, "calibrated", calibrated)
    return seen


def run(data, out, *arguments):
    return CliRunner().invoke(command.app, [str(data), "--out", str(out), *arguments])


def sources(rows):
    return {row.source for row in rows}


# What goes in


def test_all_sources_reach_teacher_student_and_calibration(data, spied, tmp_path):
    assert run(data, tmp_path / "reader.npz").exit_code == 0
    assert sources(spied["lesson"][0]) == LICENCES.keys()
    assert sources(spied["rows"][0]) == LICENCES.keys() | {"recombined", "noise"}
    assert sources(spied["dev"][0]) == PUBLIC.keys()
    assert spied["own_dev"] == [OWN["dev"][:60]]
    assert spied["asked"] == [[row.text for row in spied["rows"][0]]]


def test_dev_rows_are_not_taught(data, spied, tmp_path):
    run(data, tmp_path / "reader.npz")
    texts = {row.text for row in (*spied["lesson"][0], *spied["rows"][0])}
    assert texts.isdisjoint(row.text for row in OWN["dev"])


@pytest.mark.parametrize(
    ("names", "out"),
    [
        (["kote"], {"kote"}),
        (["kote", "goemo"], {"kote", "goemo"}),
        (["CC-BY-SA-4.0"], {"3i4k", "stylekqc"}),
        (["GPL-3.0-only"], {"mrda"}),
        (["CC0-1.0"], {"seed", "ion"}),
        (["CC-BY-4.0"], {"goemo", "goemo_ko_mt", "mrda"}),
        (["MIT", "CC-BY-SA-4.0"], {"kote", "3i4k", "stylekqc"}),
    ],
)
def test_what_is_left_out_reaches_nothing(data, spied, tmp_path, names, out):
    assert command._left_out(names) == out
    path = tmp_path / "reader.npz"
    assert run(data, path, *(word for name in names for word in ("--without", name))).exit_code == 0
    assert sources(spied["lesson"][0]) == LICENCES.keys() - out
    recombined = {"recombined"} - ({"recombined"} if "ion" in out else set())
    assert sources(spied["rows"][0]) == LICENCES.keys() - out | recombined | {"noise"}
    assert not (spied["own_dev"][0] and "ion" in out)
    assert sources(spied["dev"][0]) == PUBLIC.keys() - out
    assert not sources(spied["unasked"][0]) & out
    assert not any(text.startswith(tuple(f"{source} message" for source in out)) for text in spied["asked"][0])
    assert json.loads(path.with_suffix(".json").read_text("utf-8"))["trained_on"].keys() == LICENCES.keys() - out


def test_nothing_is_left_out_by_no_name():
    assert command._left_out([]) == set()


@pytest.mark.parametrize("name", ["gpl", "CC-BY", "AND", "CC-BY-4.0 AND GPL-3.0-only", "KOTE", ""])
def test_an_unknown_name_is_one_line_and_status_2_before_anything_is_read(tmp_path, spied, name):
    done = run(tmp_path, tmp_path / "reader.npz", "--without", name)  # a folder without files
    assert done.exit_code == 2
    *_, line = done.stderr.splitlines()
    assert [each for each in done.stderr.splitlines() if "rror" in each] == [line]
    assert f"--without: {name!r} is neither a source nor a licence: " in line
    assert all(known in line for known in (*LICENCES, "GPL-3.0-only", "CC-BY-SA-4.0"))
    assert done.stdout == ""
    assert not spied
    assert not list(tmp_path.iterdir())


def test_data_without_a_file_is_one_line_and_status_2(data, spied, tmp_path):
    for name in ("train.tsv.gz", "seed_synthetic.tsv", "dev.tsv.gz"):
        done = run(tmp_path, tmp_path / "reader.npz")
        assert done.exit_code == 2
        assert done.stderr.splitlines()[-1].endswith(f"{tmp_path}: has no {name}")
        (tmp_path / name).write_bytes((data / name).read_bytes())
    assert not spied


def test_a_source_without_a_licence_is_found_before_anything_is_fitted(data, spied, tmp_path):
    for name in ("train.tsv.gz", "dev.tsv.gz"):
        (tmp_path / name).write_bytes((data / name).read_bytes())
    (tmp_path / "seed_synthetic.tsv").write_text(lines({"forum": ("urgent", "")}, 1), encoding="utf-8")
    done = run(tmp_path, tmp_path / "reader.npz")
    assert done.exit_code == 2
    assert "'forum' is a source without a licence" in done.stderr.splitlines()[-1]
    assert not spied


def test_a_run_that_ends_while_opinions_are_kept_leaves_none(data, spied, monkeypatch, tmp_path):
    def save(path, values):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", save)
        assert run(data, tmp_path / "reader.npz").exit_code != 0
    assert run(data, tmp_path / "reader.npz").exit_code == 0
    assert len(spied["lesson"]) == 2


# What comes out


def test_the_manifest_names_version_sources_and_licences(data, spied, tmp_path):
    path = tmp_path / "new" / "folder" / "mine.npz"
    assert run(data, path, "--version", "7-mine").exit_code == 0
    manifest = json.loads(path.with_suffix(".json").read_text("utf-8"))
    assert manifest["version"] == "7-mine"
    assert manifest["trained_on"] == LICENCES
    assert manifest["licence_notice"] == "LICENSES.md"
    assert Reader.load(path).version == "7-mine"


def test_weights_are_made_and_the_teacher_is_asked_once_for_the_same_rows(data, monkeypatch, tmp_path):
    """The whole way, with a small teacher."""
    monkeypatch.setattr(encoder, "load", lambda: small_encoder(["message", *PUBLIC], blocks=1))
    monkeypatch.setattr(train, "student_of", lambda *given: student_of(*given, kept=500))
    first, again = tmp_path / "first.npz", tmp_path / "again.npz"
    done = run(data, first)
    assert done.exit_code == 0
    assert all(name in done.stderr for name in ("teacher", "opinions", "student"))
    (kept,) = command.KEEP.iterdir()
    assert np.ptp(np.load(kept).astype(float), axis=0).min() > 0
    reader = Reader.load(first)
    assert np.ptp(reader.columns([row.text for row in OWN["dev"]]), axis=0).min() > 0
    monkeypatch.setattr(teacher, "fit", None)
    monkeypatch.setattr(teacher, "opinions", None)
    assert run(data, again).exit_code == 0
    assert first.read_bytes() == again.read_bytes()
    assert first.with_suffix(".json").read_bytes() == again.with_suffix(".json").read_bytes()


def test_other_rows_are_another_question_to_the_teacher(data, spied, tmp_path):
    run(data, tmp_path / "reader.npz")
    run(data, tmp_path / "reader.npz")
    assert len(spied["lesson"]) == len(spied["asked"]) == 1
    assert run(data, tmp_path / "reader.npz", "--without", "kote").exit_code == 0
    assert len(spied["lesson"]) == len(spied["asked"]) == 2
    assert len(spied["rows"]) == 3


# The digest of a question

ROW = Row("text", "en", "kote", "calm", "request", "code", "git", "plain")


@pytest.mark.parametrize("field", [*Row.__dataclass_fields__])
def test_the_digest_changes_with_any_part_of_a_row(field):
    assert command._digest([ROW], [ROW]) == command._digest([replace(ROW)], [ROW])
    changed = replace(ROW, **{field: "other"})
    assert command._digest([ROW], [ROW]) != command._digest([changed], [ROW])
    assert command._digest([ROW], [ROW]) != command._digest([ROW], [changed])


def test_the_digest_changes_with_what_is_taught_and_asked_and_in_which_order():
    other = replace(ROW, text="other")
    digests = [
        command._digest(*rows)
        for rows in (
            ([ROW, other], []),
            ([ROW], [other]),
            ([], [ROW, other]),
            ([other], [ROW]),
            ([ROW], [other, other]),
        )
    ]
    assert len(set(digests)) == len(digests)
    assert command._digest([replace(ROW, text="\ud800")], [])


def test_the_digest_changes_with_the_order_of_the_labels(monkeypatch):
    before = command._digest([ROW], [])
    monkeypatch.setattr(command, "LABELS", (command.LABELS[0][::-1], *command.LABELS[1:]))
    assert command._digest([ROW], []) != before


@pytest.mark.parametrize("name", ["teacher.py", "encoder.py"])
def test_the_digest_changes_with_the_code_of_the_teacher(monkeypatch, tmp_path, name):
    folder = Path(command.__file__).parent
    for each in ("teacher.py", "encoder.py"):
        (tmp_path / each).write_bytes((folder / each).read_bytes())
    before = command._digest([ROW], [])
    monkeypatch.setattr(command, "__file__", str(tmp_path / "__main__.py"))
    assert command._digest([ROW], []) == before
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + b"\n")
    assert command._digest([ROW], []) != before
