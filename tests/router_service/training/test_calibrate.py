"""Probabilities that mean what they say, and rare labels that are found."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from router_service.analysis.reader import COLUMNS, HEADS, Reader
from router_service.training import calibrate, student, train
from router_service.training.calibrate import macro_f1
from router_service.training.corpora import LABELS, Row
from router_service.training.student import grams_of

LABELLED = sum(HEADS)
TONES, INTENTS, TOPICS = HEADS


def row(text, source="ion", tone="", intent="", topic=""):
    return Row(text, "en", source, tone, intent, topic)


# Macro F1


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
@example([(0, 1)])
@example([(2, 2), (2, 3)])
def test_macro_f1_is_that_of_scikit_learn_over_the_labels_that_occur(pairs):
    truth, guess = np.array(pairs).T
    expected = f1_score(truth, guess, labels=np.unique(truth), average="macro", zero_division=0)
    assert macro_f1(truth, guess, 5) == pytest.approx(expected)


# Temperatures


@pytest.mark.parametrize("temperature", [0.5, 0.8, 1.0, 1.6, 2.5])
def test_a_known_temperature_is_found(temperature):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    noise = rng.gumbel(size=logits.shape)
    truth = (logits / temperature + noise).argmax(1)  # drawn from the softmax
    assert calibrate._temperature(logits, truth) == pytest.approx(temperature, rel=0.06)


def test_logits_of_any_size_have_a_temperature():
    logits = np.array([[1e4, 0.0], [0.0, 1e4], [1e4, 0.0]])
    assert calibrate._temperature(logits, np.array([0, 1, 0])) < 1 < calibrate._temperature(logits, np.array([1, 0, 1]))


# Biases


def unbalanced(rng, count=3000):
    """Columns of COLUMNS, in general alone, in which the common label drowns the rare ones; and the truth."""
    truth = rng.choice(4, count, p=[0.9, 0.05, 0.03, 0.02])
    columns = np.zeros((count, COLUMNS))
    columns[:, TONES : TONES + INTENTS] = rng.normal(0, 0.7, (count, INTENTS))
    columns[np.arange(count), TONES + truth] += 2.5
    columns[:, TONES] += 2.5
    columns[:, -1] = -20  # none at work
    return columns, truth


def scores_of(columns, truth, biases):
    return macro_f1(truth, (columns[:, TONES : TONES + INTENTS] + biases).argmax(1), INTENTS)


def test_biases_make_rare_labels_findable():
    rng = np.random.default_rng(0)
    columns, truth = unbalanced(rng)
    biases = calibrate._biases({"one": columns}, {"one": truth}, TONES, INTENTS)
    other, other_truth = unbalanced(rng)
    before = scores_of(other, other_truth, np.zeros(INTENTS))
    assert scores_of(other, other_truth, biases) > before + 0.1
    assert biases[0] < biases[1:].min()


def test_biases_count_as_much_as_a_message_is_in_general():
    rng = np.random.default_rng(1)
    columns, truth = unbalanced(rng)
    columns[:, LABELLED : 2 * LABELLED] = columns[:, :LABELLED]
    columns[:, -1] = 20  # all at work
    assert not calibrate._biases({"one": columns}, {"one": truth}, TONES, INTENTS).any()


def test_groups_count_alike_whatever_their_size():
    rng = np.random.default_rng(2)
    columns, truth = unbalanced(rng, 4000)
    mirrored = columns.copy()
    mirrored[:, TONES] -= 5  # where the first label is the one that drowns
    few = slice(0, 400)
    both = calibrate._biases({"a": columns, "b": mirrored[few]}, {"a": truth, "b": truth[few]}, TONES, INTENTS)
    alone = calibrate._biases({"a": columns}, {"a": truth}, TONES, INTENTS)
    pooled = calibrate._biases(
        {"a": np.vstack((columns, mirrored[few]))}, {"a": np.concatenate((truth, truth[few]))}, TONES, INTENTS
    )
    assert np.abs(pooled - alone).max() < np.abs(both - alone).max()


def test_the_ascent_finds_the_best_and_of_equals_the_smallest_change():
    best = np.array([0.5, -1.0, 0.25])
    assert calibrate._ascent(lambda biases: -np.abs(biases - best).sum(), np.zeros(3)) == pytest.approx(best)
    assert not calibrate._ascent(lambda biases: 1.0, np.zeros(3)).any()
    ridge = calibrate._ascent(lambda biases: -((biases[0] + biases[1] - 1) ** 2) - (biases[0] - 2) ** 2, np.zeros(2))
    assert ridge == pytest.approx([2, -1], abs=0.3)


# Groups


def test_groups_are_by_language_and_source_and_mrda_also_without_marks():
    rows = [
        row("a", "goemo", "calm"),
        row("b", "goemo_ko_mt", "calm"),
        row("c", "kote", "urgent"),
        row("d?", "mrda", intent="inquiry"),
        row("e", "seed", "calm", "request"),
        row("f", "3i4k", intent="request"),
    ]
    tones, intents = calibrate._groups(rows, 0), calibrate._groups(rows, 1)
    assert tones == {"goemo": rows[:1], "korean": rows[1:3]}
    assert {name: [each.text for each in group] for name, group in intents.items()} == {
        "3i4k": ["f"],
        "mrda": ["d?"],
        "mrda_nopunct": ["d"],
    }
    assert calibrate._groups(rows[:1], 1) == {}


# Calibrating weights

COUNT = 1500
# By which the weights are too sure or too unsure, by head: of the public splits, and of the own one.
PUBLIC, OWN = (2.0, 0.6), (0.6, 1.6, 2.2)


def drawn(reader, texts, temperatures, rng):
    """Labels of each head, as likely as the reader says under these temperatures."""
    columns = reader.columns(texts)
    found = []
    for head, temperature in enumerate(temperatures):
        logits = calibrate._logits(columns, sum(HEADS[:head]), HEADS[head])
        guesses = (logits / temperature + rng.gumbel(size=logits.shape)).argmax(1)
        found.append([LABELS[head][guess] for guess in guesses])
    return found


@pytest.fixture(scope="module")
def made():
    """Weights, a public dev split and an own one, that the gate tells apart."""
    rng = np.random.default_rng(5)
    public = [" ".join(rng.choice(list("abcdefgh"), 5)) for _ in range(2 * COUNT)]
    own = [" ".join(rng.choice(list("stuvwxyz"), 5)) for _ in range(COUNT)]
    kept = np.unique(grams_of([*public, *own]).buckets)
    params = {
        name: np.asarray(value) * 4
        for name, value in student.initial(student.Options(len(kept), width=8, over_words=8, hidden=8)).items()
    }
    there, here = (np.isin(kept, grams_of(texts).buckets) for texts in (public, own))
    params["embedding"][:-1, 0] = here.astype(float) - there
    params["window"][::8], params["hidden"][0], params["skip"][0] = (
        0,
        0,
        0,
    )  # nothing but the gate sees where it is from
    params["out"][:, -1], params["skip"][:, -1] = 0, 20 * np.eye(24)[0]
    weights = train.quantised({name: jnp.asarray(value) for name, value in params.items()}, kept)
    goemo, mrda = public[:COUNT], public[COUNT:]
    reader = Reader(weights)
    dev = [row(text, "goemo", tone) for text, tone in zip(goemo, drawn(reader, goemo, PUBLIC, rng)[0], strict=True)]
    intents = drawn(reader, mrda, PUBLIC, rng)[1]
    dev += [row(text, "mrda", intent=intent) for text, intent in zip(mrda, intents, strict=True)]
    labels = zip(own, *drawn(reader, own, OWN, rng), strict=True)
    return weights, dev, [row(text, "ion", *each) for text, *each in labels]


def parts(columns):
    """By side and head."""
    return np.split(columns[:, :-1], np.cumsum([*HEADS, *HEADS])[:-1], axis=1)


def scale_and_shift(before, after):
    """Of after = before * scale + shift, with one scale for all columns and a shift for each."""
    centred = before - before.mean(0)
    scale = float((centred * (after - after.mean(0))).sum() / (centred**2).sum())
    return (
        scale,
        (after - before * scale).mean(0),
        np.abs(after - before * scale - (after - before * scale).mean(0)).max(),
    )


def test_each_head_gets_a_temperature_a_side_and_biases_in_general_alone(made):
    weights, dev, own = made
    texts = [each.text for each in own]
    before, after = Reader(weights).columns(texts), Reader(calibrate.calibrated(weights, dev, own)).columns(texts)
    assert np.allclose(before[:, -1], after[:, -1])  # the gate
    found = [scale_and_shift(*each) for each in zip(parts(before), parts(after), strict=True)]
    assert all(rest < 1e-3 for _, _, rest in found)
    scales, shifts = [scale for scale, _, _ in found], [np.abs(shift).max() for _, shift, _ in found]
    assert scales[2] == pytest.approx(1)  # no public subjects
    assert [1 / scale for scale in scales] == pytest.approx([*PUBLIC, 1, *OWN], rel=0.2)
    assert min(shifts[:2]) > 0.05
    assert max(shifts[2:]) < 1e-3


def surprise(weights, rows):
    found = Reader(weights).probabilities([each.text for each in rows]).tone
    chances = found[np.arange(len(rows)), [LABELS[0].index(each.tone) for each in rows]]
    return -np.log(chances).mean()


def test_labels_are_likelier_under_calibrated_weights(made):
    weights, dev, own = made
    calibrated = calibrate.calibrated(weights, dev, own)
    assert surprise(calibrated, own) < surprise(weights, own) - 0.01
    public = [each for each in dev if each.tone]
    truth = np.array([LABELS[0].index(each.tone) for each in public])
    before, after = (
        macro_f1(truth, Reader(each).probabilities([one.text for one in public]).tone.argmax(1), TONES)
        for each in (weights, calibrated)
    )
    assert after > before


def test_the_threshold_below_which_it_abstains_is_set(made):
    assert calibrate.calibrated(*made).abstain == np.float32(calibrate.ABSTAIN)


def test_without_public_splits_what_is_general_stays(made):
    weights, _, own = made
    texts = [each.text for each in own]
    before, after = Reader(weights).columns(texts), Reader(calibrate.calibrated(weights, [], own)).columns(texts)
    assert np.array_equal(before[:, :LABELLED], after[:, :LABELLED])
    assert not np.allclose(before[:, LABELLED:-1], after[:, LABELLED:-1])
