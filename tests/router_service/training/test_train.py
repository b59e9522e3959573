"""From rows and opinions to weights."""

from __future__ import annotations

import string
from collections import Counter
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from router_service.analysis.features import BUCKETS
from router_service.analysis.reader import COLUMNS, HEADS, Reader, save_weights
from router_service.analysis.vocabulary import TONES
from router_service.training import student, teacher, train
from router_service.training.corpora import LABELS, Row, other_writing, own_rows
from router_service.training.student import grams_of

LABELLED = sum(HEADS)
OWN = own_rows("train")[::100]


def quiet(done, total):
    pass


def row(text, source="ion", tone="", intent="", topic="", **fields):
    return Row(text, "en", source, tone, intent, topic, **fields)


def random():
    return np.random.default_rng(0)


# What is shown


def test_noise_is_of_one_script_a_text_and_has_no_labels():
    rows = train.noise(600, random())
    assert rows == train.noise(600, random())
    assert len(rows) == 600
    scripts = [(ord(first), ord(last)) for first, last in train._SCRIPTS]
    used = set()
    for each in rows:
        assert (each.source, each.tone, each.intent, each.topic) == ("noise", "", "", "")
        words = each.text.split(" ")
        assert 1 <= len(words) <= 15
        assert all(1 <= len(word) <= 8 for word in words)
        signs = list(map(ord, each.text.replace(" ", "")))
        one = [script for script in scripts if script[0] <= min(signs) and max(signs) <= script[1]]
        assert one
        used.update(one)
    assert used == set(scripts)
    letters = {sign for each in rows for sign in each.text}
    assert set(string.ascii_letters + string.digits) <= letters
    assert not any("가" <= sign <= "힣" for sign in letters)  # that is read


def test_a_curriculum_is_the_own_corpus_what_most_allows_parts_and_noise(monkeypatch):
    monkeypatch.setattr(train, "RECOMBINED", 40)
    monkeypatch.setattr(train, "NOISE", 30)
    monkeypatch.setattr(train, "MOST", {("mrda", "statement"): 2})
    others = [row(f"other {n}", "mrda", intent="statement") for n in range(9)] + [row("mine", "kote", "calm")] * 3
    found = train.curriculum(OWN, others, random())
    assert found == train.curriculum(OWN, others, random())
    assert found[: len(OWN)] == OWN
    sources = Counter(each.source for each in found)
    assert sources == {"ion": len(OWN), "mrda": 2, "kote": 3, "recombined": sources["recombined"], "noise": 30}
    assert 35 <= sources["recombined"] <= 40
    words = {word for each in OWN for word in each.text.split()}
    parts = [word for each in found if each.source == "recombined" for word in each.text.split()]
    assert np.mean([word in words for word in parts]) > 0.95  # some words are taken apart


def test_targets_are_the_labels_and_weights_which_heads_have_one():
    rows = [row("a", tone=TONES[2], intent=LABELS[1][1], topic=LABELS[2][4]), row("b", "kote", TONES[0]), row("c")]
    targets, weights = train.targets_of(rows)
    assert targets.shape == (3, LABELLED)
    assert [np.flatnonzero(each).tolist() for each in targets] == [[2, HEADS[0] + 1, HEADS[0] + HEADS[1] + 4], [0], []]
    assert weights.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_rare_labels_of_a_source_count_more():
    rows = [row("a", "kote", tone) for tone in ["calm"] * 90 + ["urgent"] * 10]
    even = [row("b", "goemo", tone) for tone in ["calm", "urgent"] * 5]  # where neither is rare
    found = train.balanced(*train.targets_of([*rows, *even]), [*rows, *even])
    common, rare = found[0, 0], found[90, 0]
    assert np.array_equal(found[:100, 0], np.repeat([common, rare], [90, 10]))
    assert rare / common == pytest.approx((90 / 10) ** train.BALANCE)
    assert found[:100, 0].mean() == pytest.approx(1)
    assert found[100:, 0] == pytest.approx(1)
    assert not found[:, 1:].any()


@pytest.mark.parametrize(("source", "weight"), [("ion", 1), ("kote", 1), ("stylekqc", 0.3)])
def test_a_source_counts_by_its_weight(source, weight):
    rows = [row("a", source, tone) for tone in ("calm", "calm", "curious", "playful")]
    assert train.balanced(*train.targets_of(rows), rows)[:, 0].mean() == pytest.approx(weight)


def test_examples_say_what_is_from_work_and_how_much_opinions_count():
    rows = [row("a", source) for source in ("ion", "seed", "recombined", "mrda", "noise")]
    opinions = np.random.default_rng(1).random((5, 2 * LABELLED), np.float32)
    found = train.examples(rows, opinions, grams_of([each.text for each in rows]))
    assert found.work.tolist() == [1, 1, 1, 0, -1]
    assert found.sightings.tolist() == [train.SIGHTINGS["ion"], 1, 1, 1, 1]
    assert np.array_equal(found.opinions, opinions)
    assert found.opinion_weights.tolist() == pytest.approx(np.array([[0, 1.5], [0, 0.5], [0, 1], [1, 0.5], [0.3, 0.3]]))
    assert not found.weights.any()


def test_of_noise_nothing_is_thought_likelier_than_anything_else():
    rows = [row("a"), row("b", "noise"), row("c", "recombined")]
    logits = np.random.default_rng(1).normal(0, 5, (3, teacher.COLUMNS)).astype(np.float16)
    found = train.opinions_of(logits, rows)
    assert np.array_equal(found[[0, 2]], teacher.distributions(logits)[[0, 2]])
    assert found[1] == pytest.approx(np.concatenate([np.full(size, 1 / size) for size in (*HEADS, *HEADS)]))


# Buckets


def test_kept_buckets_are_those_that_most_messages_have_by_weight():
    rows = [*OWN, *(row(each.text[::-1], "kote") for each in OWN[:40]), *train.noise(40, random())]
    grams = grams_of([each.text for each in rows])
    frequency = Counter()
    for number, each in enumerate(rows):
        for bucket in set(grams.buckets[slice(*grams.offsets[number : number + 2])].tolist()):
            frequency[bucket] += train.WEIGHTS.get(each.source, 1.0)
    for count in (10, 500):
        kept = train.kept_buckets(grams, rows, count)
        assert kept.dtype == np.int32
        assert np.all(np.diff(kept) > 0)
        found, best = ([round(frequency[each], 6) for each in group] for group in (kept.tolist(), frequency))
        assert sorted(found) == sorted(best)[-count:]


def test_a_bucket_counts_once_a_message():
    rows = [row("kkk " * 30), *(row(f"zz {letter}") for letter in "abc")]
    grams = grams_of([each.text for each in rows])
    kept = set(train.kept_buckets(grams, rows, 40).tolist())
    shared = set(grams_of(["zz"]).buckets.tolist()) & set(grams_of(["zz a"]).buckets.tolist())
    assert shared <= kept


# Weights


def small_params(rows, width=6):
    rng = np.random.default_rng(2)
    options = student.Options(rows, width=width, over_words=4, hidden=3)
    return {name: jnp.asarray(rng.normal(0, 1, value.shape)) for name, value in student.initial(options).items()}


def test_embeddings_are_bytes_in_steps_of_their_dimension():
    kept = np.array([3, 8, 9, BUCKETS - 1] * 50) + np.repeat(np.arange(50), 4) * 16
    kept = np.unique(kept % BUCKETS)
    params = small_params(len(kept))
    params["embedding"] *= jnp.asarray([1, 10, 0.01, 3, 1, 1])
    weights = train.quantised(params, kept)
    assert np.array_equal(np.flatnonzero(np.unpackbits(weights.kept)), kept)
    assert weights.embedding.dtype == np.int8
    embedding = np.asarray(params["embedding"])[:-1]
    steps = embedding / weights.scale
    within = np.abs(steps) <= 127
    assert 0.99 < within.mean() < 1
    assert np.abs(weights.embedding).max(axis=0).tolist() == [127] * 6
    assert np.abs(weights.embedding - steps)[within].max() <= 0.501
    assert np.array_equal(weights.embedding[~within], 127 * np.sign(steps[~within]))
    for name in ("window", "window_bias", "hidden", "hidden_bias", "out", "skip", "bias"):
        assert np.array_equal(getattr(weights, name), np.asarray(params[name], np.float32))


def test_changed_columns_are_multiplied_and_then_shifted():
    kept = np.unique(grams_of(["the build is red", "배포가 또 깨졌어요"]).buckets)
    weights = train.quantised(small_params(len(kept)), kept)
    rng = np.random.default_rng(3)
    factors, shifts = rng.uniform(0.5, 2, COLUMNS), rng.normal(size=COLUMNS)
    texts = ["the build is green", "배포가 또", ""]
    before = Reader(weights).columns(texts)
    assert np.allclose(
        Reader(train.changed(weights, factors, shifts)).columns(texts), before * factors + shifts, atol=1e-4
    )
    assert np.array_equal(Reader(train.changed(weights, np.ones(COLUMNS), np.zeros(COLUMNS))).columns(texts), before)


@pytest.fixture(scope="module")
def opinions():
    """Surer of the labels than of the rest."""
    found = np.random.default_rng(4).random((len(ROWS), 2 * LABELLED)).astype(np.float32)
    for side in (0, LABELLED):
        found[:, side : side + LABELLED] += 20 * train.targets_of(ROWS)[0]
        for head, size in enumerate(HEADS):
            part = found[:, side + sum(HEADS[:head]) :][:, :size]
            part /= part.sum(1, keepdims=True)
    return found


ROWS = [*OWN, *(replace(each, source="kote") for each in OWN[:20]), *train.noise(10, random())]
KEPT = 2000


@pytest.fixture(scope="module")
def weights(opinions):
    return train.student_of(ROWS, opinions, [], quiet, kept=KEPT)


def test_weights_of_a_student_can_be_loaded_and_read(weights, tmp_path):
    path = tmp_path / "reader.npz"
    save_weights(weights, path, version="3")
    reader = Reader.load(path)
    assert reader.version == "3"
    assert weights.embedding.shape == (KEPT, student.Options(1).width)
    found = reader.probabilities([each.text for each in OWN])
    assert np.allclose(found.tone.sum(1), 1)
    likely = reader.read_all([each.text for each in OWN])
    assert {each.tone.primary for each in likely} <= set(TONES)


def test_the_same_rows_give_the_same_file(weights, opinions, tmp_path):
    for name, each in (("once", weights), ("again", train.student_of(ROWS, opinions, [], quiet, kept=KEPT))):
        save_weights(each, tmp_path / f"{name}.npz", version="1")
    assert (tmp_path / "once.npz").read_bytes() == (tmp_path / "again.npz").read_bytes()
    assert (tmp_path / "once.json").read_bytes() == (tmp_path / "again.json").read_bytes()


def test_another_seed_gives_another_student(weights, opinions):
    other = train.student_of(ROWS, opinions, [], quiet, seed=1, kept=KEPT)
    assert not np.array_equal(other.out, weights.out)


def test_a_student_sees_every_message_also_as_somebody_else_would_type_it(monkeypatch, opinions):
    seen = []

    def fit(examples, options, progress):
        seen.append(examples)
        return student.initial(options)

    monkeypatch.setattr(train, "fit", fit)
    grams = []
    monkeypatch.setattr(train, "grams_of", lambda texts: grams.append(list(texts)) or grams_of(texts))
    train.student_of(ROWS, opinions, [], quiet, kept=KEPT)
    written = [number for number, each in enumerate(ROWS) if each.source != "noise"]
    others = [other_writing(ROWS[number]).text for number in written]
    assert grams == [[*(each.text for each in ROWS), *others]]
    assert np.array_equal(seen[0].opinions, np.concatenate((opinions, opinions[written])))
    assert seen[0].work.tolist()[len(ROWS) :] == [1.0] * len(OWN) + [0.0] * 20


def test_those_that_the_teacher_was_not_asked_about_teach_by_their_labels_alone(monkeypatch, opinions):
    seen = []

    def fit(examples, options, progress):
        seen.append(examples)
        return student.initial(options)

    monkeypatch.setattr(train, "fit", fit)
    train.student_of(
        ROWS, opinions, [replace(OWN[0], source="mrda", text="So that is what we agreed.")], quiet, kept=KEPT
    )
    unasked = [len(ROWS), len(seen[0].work) - 1]  # as it was written, and otherwise
    assert (seen[0].opinion_weights[unasked] == 0).all()
    assert (seen[0].weights[unasked, 0] > 0).all()
    assert (seen[0].opinion_weights[: len(OWN), 1] > 0).all()


def test_unasked_are_the_others_that_are_not_among_the_rows():
    others = [replace(each, source="kote") for each in OWN[:3]]
    assert train.unasked([*OWN, others[1]], others) == [others[0], others[2]]
