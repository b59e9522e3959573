"""Figures over labelled messages, against hand-made ones and against their definitions."""

from __future__ import annotations

import gzip
import json
import sys
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from router_service import evaluation
from router_service.evaluation import EvaluationError, LabelledMessage, parse_tsv
from router_service.punctuation import without_punctuation

LABELS = 4


def reading(guesses, confidences=None, labels=LABELS):
    """Probabilities whose likeliest labels are these."""
    confidences = confidences or [0.7] * len(guesses)
    rows = np.array([[(1 - confidence) / (labels - 1)] * labels for confidence in confidences])
    rows[np.arange(len(guesses)), guesses] = confidences
    return rows


def ece(truth, probabilities):
    return evaluation.expected_calibration_error(evaluation.reliability(truth, probabilities))


@st.composite
def readings(draw):
    """Truth and probabilities, with equally confident rows among them."""
    n, labels = draw(st.integers(1, 60)), draw(st.integers(2, 9))
    weights = draw(hnp.arrays(np.int64, (n, labels), elements=st.integers(1, 6))).astype(float)
    truth = draw(hnp.arrays(np.intp, n, elements=st.integers(0, labels - 1)))
    return truth, weights / weights.sum(axis=1, keepdims=True)


# Metrics

TRUTH = np.array([0, 0, 0, 1, 1, 2])
GUESSES = [0, 0, 1, 1, 3, 0]


def test_accuracy_by_hand():
    assert evaluation.accuracy(TRUTH, reading(GUESSES)) == 3 / 6


def test_macro_f1_is_over_the_labels_that_occur():
    # 0: 2 of 3 found, 2 of 3 right; 1: 1 of 2, 1 of 2; 2: never found; 3 is only ever read and has no part in the mean.
    assert evaluation.macro_f1(TRUTH, reading(GUESSES)) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_confusion_matrix_has_a_row_a_true_label_and_every_label():
    matrix = evaluation.confusion_matrix(TRUTH, reading(GUESSES))
    assert matrix.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_the_first_of_equally_likely_labels_counts():
    assert evaluation.predicted(np.array([[0.2, 0.4, 0.4], [0.5, 0.0, 0.5]])).tolist() == [1, 0]


@given(readings())
def test_macro_f1_is_the_mean_of_harmonic_means(case):
    truth, probabilities = case
    guesses = probabilities.argmax(axis=1)
    scores = []
    for label in set(truth.tolist()):
        hits = ((truth == label) & (guesses == label)).sum()
        precision = hits / max((guesses == label).sum(), 1)
        recall = hits / (truth == label).sum()
        scores.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert evaluation.macro_f1(truth, probabilities) == pytest.approx(np.mean(scores))


def test_calibration_error_by_hand():
    # Bin (0.6, 0.667]: three of 0.65, two right. Bin (0.933, 1]: one of 0.95, wrong.
    probabilities = reading([0, 0, 0, 1], [0.65, 0.65, 0.65, 0.95])
    assert ece(np.array([0, 0, 1, 0]), probabilities) == pytest.approx((3 * abs(2 / 3 - 0.65) + 0.95) / 4)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    bins = evaluation.reliability(np.array([0, 0]), reading([0, 0], [9 / 15, 1.0]))
    assert [(each.low, each.high) for each in bins if each.count] == [(8 / 15, 9 / 15), (14 / 15, 1.0)]


def test_bins_that_nobody_falls_into_are_there_and_zero():
    bins = evaluation.reliability(np.array([0]), reading([0], [0.5]))
    assert len(bins) == 15
    assert {(each.confidence, each.accuracy) for each in bins if not each.count} == {(0.0, 0.0)}


@given(readings())
def test_calibration_error_agrees_with_its_definition(case):
    truth, probabilities = case
    confidences, rights = probabilities.max(axis=1), probabilities.argmax(axis=1) == truth
    total = 0.0
    for number in range(15):
        inside = (confidences > number / 15) & (confidences <= (number + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(rights[inside].mean() - confidences[inside].mean())
    assert ece(truth, probabilities) == pytest.approx(total, abs=1e-12)


@given(
    st.lists(st.integers(2, 12).flatmap(lambda of: st.tuples(st.integers(1 + of // 2, of), st.just(of))), min_size=1)
)
def test_calibration_error_of_perfect_calibration_is_zero(groups):
    """Of each group of `of` messages, read with confidence right / of, so many are right."""
    truth = np.concatenate([np.repeat([0, 1], [right, of - right]) for right, of in groups])
    confidences = [float(Fraction(right, of)) for right, of in groups for _ in range(of)]
    assert ece(truth, reading([0] * len(truth), confidences)) == pytest.approx(0, abs=1e-12)


def test_coverage_curve_by_hand():
    probabilities = reading([0, 0, 0, 0], [0.6, 0.9, 0.5, 0.8])
    coverage, accuracies = evaluation.coverage_curve(np.array([1, 0, 0, 0]), probabilities)
    assert coverage.tolist() == [0.25, 0.5, 0.75, 1.0]
    assert accuracies.tolist() == [1.0, 1.0, 2 / 3, 3 / 4]


def test_equally_confident_messages_are_one_point_of_the_curve():
    coverage, accuracies = evaluation.coverage_curve(np.array([0, 1, 0]), reading([0, 0, 0], [0.6, 0.6, 0.9]))
    assert coverage.tolist() == [1 / 3, 1.0]
    assert accuracies.tolist() == [1.0, 2 / 3]


def test_coverage_at_is_the_largest_that_reaches_the_target():
    curve = (np.array([0.25, 0.5, 0.75, 1.0]), np.array([1.0, 0.5, 0.8, 0.7]))
    assert [evaluation.coverage_at(curve, target) for target in (0.5, 0.8, 1.0)] == [1.0, 0.75, 0.25]
    assert evaluation.coverage_at((np.array([0.5, 1.0]), np.array([0.5, 0.5])), 0.9) == 0.0


@given(readings(), st.randoms())
def test_every_figure_is_bounded_and_independent_of_the_order(case, random):
    truth, probabilities = case
    scores = evaluation.scores(truth, probabilities)
    fractions = [scores.accuracy, scores.macro_f1, scores.ece, *scores.coverage_at.values(), *sum(scores.curve, ())]
    assert all(0 <= value <= 1 for value in fractions)
    assert scores.n == sum(map(sum, scores.confusion)) == sum(each.count for each in scores.reliability)
    assert scores.curve[-1] == (1.0, scores.accuracy)
    order = random.sample(range(len(truth)), len(truth))
    shuffled = evaluation.scores(truth[order], probabilities[order])
    assert shuffled.curve == scores.curve
    assert shuffled.confusion == scores.confusion
    assert shuffled.ece == pytest.approx(scores.ece)


def test_a_reported_curve_is_thinned_and_reaches_every_hundredth():
    probabilities = reading([0] * 1000, np.linspace(0.3, 1, 1000).tolist())
    curve = evaluation.scores(np.zeros(1000, dtype=np.intp), probabilities).curve
    assert [coverage for coverage, _ in curve] == [number / 100 for number in range(1, 101)]


def test_coverage_is_reported_at_the_named_accuracies():
    probabilities = reading([0] * 20, np.linspace(0.99, 0.6, 20).tolist())
    scores = evaluation.scores(np.repeat([0, 1], [16, 4]), probabilities)
    assert scores.coverage_at == {"0.8": 1.0, "0.9": 17 / 20, "0.95": 16 / 20}


# Labelled files

HEADER = "id\tlang\tsource\ttone\tintent\traw_label\ttext\n"
ROW = "1\tko\tkote\tcalm\t\t없음\t좋아요\n"


def test_rows_are_read_by_the_header_whatever_the_order_and_other_columns():
    data = "text\tnote\tintent\ttone\tsource\tlang\nhi there\tx\trequest\t\tseed\ten\n"
    assert parse_tsv(data.encode(), "a.tsv") == [LabelledMessage("hi there", "en", "seed", "", "request")]


@pytest.mark.parametrize(
    "data",
    [
        (HEADER + ROW).encode(),
        (HEADER + ROW).rstrip("\n").encode(),
        (HEADER + ROW).replace("\n", "\r\n").encode(),
        (HEADER + "\n" + ROW + "\n").encode(),
        "lang\tsource\ttone\tintent\ttext\nko\tkote\tcalm\t\t좋아요\n".encode("utf-8-sig"),
        gzip.compress((HEADER + ROW).encode()),
    ],
    ids=["plain", "no last line break", "crlf", "blank lines", "byte order mark", "gzip"],
)
def test_ways_to_write_the_same_file(data):
    assert parse_tsv(data, "a.tsv") == [LabelledMessage("좋아요", "ko", "kote", "calm", "")]


@pytest.mark.parametrize(("written", "text"), [('"so', '"so'), ('say "a"" b', 'say "a"" b'), (r"a\nb", "a\nb")])
def test_quotes_are_text_and_line_breaks_are_escaped(written, text):
    assert parse_tsv(f"{HEADER}1\ten\tx\tcalm\t\t\t{written}\n{ROW}".encode(), "a.tsv")[0].text == text


@pytest.mark.parametrize(
    ("cell", "personas"),
    [("Lua", ("Lua",)), ("Elro, Riri", ("Elro", "Riri")), ("Elro|Riri|", ("Elro", "Riri")), ("", ())],
)
def test_a_column_of_personas_may_name_several(cell, personas):
    data = f"lang\tsource\ttone\tintent\tpersonas\ttext\nen\tx\tcalm\t\t{cell}\thello\n"
    assert parse_tsv(data.encode(), "a.tsv")[0].personas == personas


def test_personas_alone_are_labels_enough():
    data = b"lang\tsource\ttone\tintent\tpersonas\ttext\nen\tx\t\t\tLua\thello\n"
    assert parse_tsv(data, "a.tsv") == [LabelledMessage("hello", "en", "x", "", "", ("Lua",))]


def test_a_persona_that_nobody_knows_is_named():
    messages = [LabelledMessage("hello", "en", "x", "calm", "", ("Lua", "Lau" * 50))]
    with pytest.raises(EvaluationError, match=r"^personas must be of Elro, Lua; one is 'LauLau.{34}'$"):
        evaluation.check_personas(messages, ("Elro", "Lua"))
    evaluation.check_personas(MESSAGES, ())


TONES = "frustrated, calm, curious, analytical, playful, anxious, urgent, confused, collaborative"
BAD_HEADER = "a.tsv:1: must be TAB-separated names, among them lang, source, tone, intent, text; lacks"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            b"id\tlang\tsource\ttone\ttext\n",
            f"{BAD_HEADER} intent",
        ),
        (
            b"",
            f"{BAD_HEADER} lang, source, tone, intent, text",
        ),
        (HEADER.encode(), "a.tsv:2: must be a labelled message"),
        ((HEADER + ROW + "2\tko\n").encode(), "a.tsv:3: must have 7 columns as the header has; has 2"),
        (
            (HEADER + ROW + "\n" + ROW.replace("calm", "joy")).encode(),
            f"a.tsv:4: tone must be one of {TONES}, or empty; is 'joy'",
        ),
        (
            (HEADER + ROW.replace("calm\t", "calm\tplanning")).encode(),
            "a.tsv:2: intent must be one of inquiry, request, statement, expressive, or empty; is 'planning'",
        ),
        ((HEADER + ROW.replace("calm", "")).encode(), "a.tsv:2: must have a tone or an intent"),
        (
            (HEADER + ROW).replace("raw_label", "personas").replace("calm", "").replace("없음", " ").encode(),
            "a.tsv:2: must have a tone or an intent",
        ),
        ((HEADER + ROW.replace("좋아요", " ")).encode(), "a.tsv:2: text must not be empty"),
        ((HEADER + ROW.replace("ko\t", "\t", 1)).encode(), "a.tsv:2: lang must not be empty"),
        ((HEADER + ROW).encode() + b"\xff", "a.tsv:3: must be UTF-8"),
        (gzip.compress((HEADER + ROW).encode())[:-9], "a.tsv: must be a whole gzip file"),
        (gzip.compress((HEADER + ROW).encode())[:12] + b"x" * 20, "a.tsv: must be a whole gzip file"),
    ],
)
def test_a_bad_file_is_one_line_with_file_and_line_and_what_is_allowed(data, problem):
    with pytest.raises(EvaluationError) as caught:
        parse_tsv(data, "a.tsv")
    assert str(caught.value) == problem


def test_an_endless_wrong_label_is_shown_in_part():
    with pytest.raises(EvaluationError) as caught:
        parse_tsv((HEADER + ROW.replace("calm", "x" * 5000)).encode(), "a.tsv")
    assert len(str(caught.value)) < 250


def test_files_are_read_from_disk_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "a.tsv").write_text(HEADER + ROW, "utf-8")
    assert len(evaluation.read_tsv(tmp_path / "a.tsv")) == 1
    with pytest.raises(EvaluationError, match=r"b\.tsv: no such file"):
        evaluation.read_tsv(tmp_path / "b.tsv")


# Reports


def labelled(language, source, tone="", intent=""):
    return LabelledMessage("text", language, source, tone, intent)


MESSAGES = [
    labelled("en", "goemo", tone="calm"),
    labelled("ko", "3i4k", intent="request"),
    labelled("en", "seed", tone="urgent", intent="request"),
    labelled("ko", "seed", tone="urgent", intent="inquiry"),
]


def answers(tones, intents):
    """What a reader would give that reads these labels."""
    return {
        dimension: reading([labels.index(guess) for guess in guesses], labels=len(labels))
        for (dimension, labels), guesses in zip(evaluation.DIMENSIONS.items(), (tones, intents), strict=True)
    }


GIVEN = answers(["calm", "calm", "calm", "urgent"], ["inquiry", "request", "inquiry", "inquiry"])


def test_a_report_has_the_whole_and_every_language_source_and_pair():
    found = evaluation.report("v1", MESSAGES, GIVEN)
    assert found.version == "v1"
    assert [(each.name, each.messages) for each in found.slices] == [
        ("all", 4),
        ("en", 2),
        ("ko", 2),
        ("3i4k", 1),
        ("goemo", 1),
        ("seed", 2),
        ("en goemo", 1),
        ("en seed", 1),
        ("ko 3i4k", 1),
        ("ko seed", 1),
    ]


def test_each_slice_is_scored_on_its_own_labelled_messages():
    slices = {each.name: each for each in evaluation.report("v1", MESSAGES, GIVEN).slices}
    tones = {name: (each.tone.n, each.tone.accuracy) for name, each in slices.items() if each.tone}
    intents = {name: (each.intent.n, each.intent.accuracy) for name, each in slices.items() if each.intent}
    assert tones["all"] == (3, 2 / 3)
    assert (tones["en"], tones["ko"], tones["seed"]) == ((2, 0.5), (1, 1.0), (2, 0.5))
    assert (tones["en seed"], tones["ko seed"]) == ((1, 0.0), (1, 1.0))
    assert intents["all"] == (3, 2 / 3)
    assert (intents["ko"], intents["3i4k"]) == ((2, 1.0), (1, 1.0))


def test_a_dimension_without_labels_has_no_scores():
    slices = {each.name: each for each in evaluation.report("v1", MESSAGES, GIVEN).slices}
    assert slices["3i4k"].tone is None
    assert slices["goemo"].intent is None


def test_a_report_is_json():
    found = evaluation.report("v1", MESSAGES, GIVEN)
    plain = json.loads(json.dumps(msgspec.to_builtins(found)))
    assert plain["slices"][0]["tone"]["accuracy"] == 2 / 3
    assert plain["slices"][3]["tone"] is None
    assert msgspec.convert(plain["slices"][0]["tone"], evaluation.Scores) == found.slices[0].tone


# Comparison

rng = np.random.default_rng(7)
MANY = rng.choice(LABELS, 300, p=[0.5, 0.3, 0.2, 0])
MANY[[50, 150]] = 3  # so rarely that some resamples do without
WORSE = reading(np.where(rng.random(300) < 0.5, MANY, rng.integers(0, LABELS, 300)).tolist(), labels=9)
BETTER_GUESSES = WORSE.argmax(axis=1)
BETTER_GUESSES[:20] = MANY[:20]
BETTER = reading(BETTER_GUESSES.tolist(), labels=9)


def test_the_difference_is_that_of_the_second_from_the_first():
    found = evaluation.difference(MANY, WORSE, BETTER)
    gained = evaluation.accuracy(MANY, BETTER) - evaluation.accuracy(MANY, WORSE)
    assert found.accuracy.difference == gained > 0
    assert found.macro_f1.difference == evaluation.macro_f1(MANY, BETTER) - evaluation.macro_f1(MANY, WORSE)
    back = evaluation.difference(MANY, BETTER, WORSE)
    assert back.accuracy.difference == -gained
    assert (back.accuracy.low, back.accuracy.high) == pytest.approx((-found.accuracy.high, -found.accuracy.low))


def test_readers_that_agree_differ_by_nothing():
    change = evaluation.Change(0.0, 0.0, 0.0)
    assert evaluation.difference(MANY, WORSE, WORSE) == evaluation.Difference(change, change)


def test_the_bootstrap_is_paired():
    """Two readers that differ in 20 messages of 300, always for the better: apart, their intervals overlap."""
    found = evaluation.difference(MANY, WORSE, BETTER)
    assert found.accuracy.low > 0
    apart = 1.96 * np.sqrt(2 * 0.6 * 0.4 / len(MANY))
    assert found.accuracy.high - found.accuracy.low < apart


def test_the_interval_is_that_of_drawing_messages_with_replacement():
    changes = []
    for rows in np.random.default_rng(1).integers(0, len(MANY), (500, len(MANY))):
        metrics = (evaluation.accuracy, evaluation.macro_f1)
        changes.append([metric(MANY[rows], BETTER[rows]) - metric(MANY[rows], WORSE[rows]) for metric in metrics])
    low, high = np.percentile(changes, (2.5, 97.5), axis=0)
    found = evaluation.difference(MANY, WORSE, BETTER)
    assert (found.accuracy.low, found.macro_f1.low) == pytest.approx(tuple(low), abs=0.008)
    assert (found.accuracy.high, found.macro_f1.high) == pytest.approx(tuple(high), abs=0.008)


@settings(deadline=None)
@given(readings())
def test_intervals_are_ordered_bounded_and_the_same_again(case):
    truth, probabilities = case
    found = evaluation.difference(truth, probabilities, probabilities[::-1])
    assert found == evaluation.difference(truth, probabilities, probabilities[::-1])
    for change in (found.accuracy, found.macro_f1):
        assert -1 <= change.low <= change.high <= 1


def test_a_comparison_has_the_slices_of_a_report():
    found = evaluation.compare(MESSAGES, GIVEN, answers(["calm"] * 4, ["request"] * 4))
    assert [each.name for each in found] == [each.name for each in evaluation.report("", MESSAGES, GIVEN).slices]
    assert found[0].tone.accuracy.difference == pytest.approx(-1 / 3)
    assert found[0].intent.accuracy.difference == 0
    assert next(each for each in found if each.name == "ko seed").tone.accuracy == evaluation.Change(-1, -1, -1)


def test_persona_accuracy_is_that_of_the_messages_with_personas_in_every_slice():
    lua, either = (
        LabelledMessage(text, "en", source, "calm", "", personas)
        for text, source, personas in (("a", "goemo", ("Lua",)), ("b", "chat", ("Elro", "Riri")))
    )
    found = evaluation.report(
        "", [*MESSAGES[:1], lua, either], answers(["calm"] * 3, ["request"] * 3), {lua: "Nana", either: "Riri"}
    )
    assert {each.name: each.persona for each in found.slices} == {
        "all": evaluation.Routed(2, 0.5),
        "en": evaluation.Routed(2, 0.5),
        "goemo": evaluation.Routed(1, 0.0),
        "chat": evaluation.Routed(1, 1.0),
        "en goemo": evaluation.Routed(1, 0.0),
        "en chat": evaluation.Routed(1, 1.0),
    }
    assert {each.persona for each in evaluation.report("", MESSAGES, GIVEN).slices} == {None}


def test_stripped_messages_have_slices_of_their_own_and_no_part_in_the_others():
    original = LabelledMessage("Really?! No...", "en", "chat", "confused", "", ("Nana",))
    (stripped,) = evaluation.stripped([original])
    assert (stripped.text, stripped.source) == ("Really No", "chat_nopunct")
    assert (stripped.tone, stripped.personas) == ("confused", ("Nana",))
    found = evaluation.report("", [original, stripped], answers(["confused", "calm"], ["request"] * 2)).slices
    assert {each.name: each.tone.accuracy for each in found} == {
        "all": 1.0,
        "en": 1.0,
        "chat": 1.0,
        "chat_nopunct": 0.0,
        "en chat": 1.0,
        "en chat_nopunct": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("왜 안 돼요?!  진짜...", "왜 안 돼요 진짜"),
        ("a,b", "a b"),
        ("no marks", "no marks"),
        ("?!", "?!"),
        ("a.\nb", "a \nb"),
    ],
)
def test_what_is_left_without_punctuation(text, bare):
    assert without_punctuation(text) == bare


def test_a_missing_extra_is_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.metrics", raising=False)
    with pytest.raises(EvaluationError, match=r"^sklearn.* is not installed: pip install 'ion-chat\[eval\]'$"):
        evaluation.require("sklearn.metrics")
