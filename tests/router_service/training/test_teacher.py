"""The teacher: what it is shown, what it learns of it, and its opinions."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise

import jax
import numpy as np
import pytest

from router_service.analysis.reader import HEADS
from router_service.training import teacher
from router_service.training.corpora import LABELS, Row, other_writing
from tests.router_service.training.small_encoder import small_encoder

TONES, INTENTS, SUBJECTS = LABELS
LABELLED = sum(HEADS)
FILLERS = [f"word{number}" for number in range(20)]
SMALL = small_encoder([*FILLERS, *TONES, *INTENTS, *SUBJECTS])


def quiet(done, total):
    pass


def row(text, source="ion", tone="", intent="", topic="", **fields):
    return Row(text, "en", source, tone, intent, topic, **fields)


# The lesson


def numbered(count, source, tone="", intent=""):
    """Rows that are told apart by their subject, whatever becomes of their text."""
    return [row(f"Row, {n}.", source, tone, intent, subject=f"{source}/{tone}{intent}/{n}") for n in range(count)]


def shown(own, others, seed=0):
    return teacher.lesson(own, others, np.random.default_rng(seed))


def test_the_own_corpus_is_shown_several_times_the_others_once():
    own, others = numbered(5, "ion", "calm", "request"), numbered(7, "kote", "calm")
    sights = Counter(each.subject for each in shown(own, others))
    assert all(sights[each.subject] == teacher.EPOCHS for each in own)
    assert all(sights[each.subject] == 1 for each in others)
    assert len(sights) == 12


def test_common_labels_are_shown_at_most_so_often_and_rare_ones_twice(monkeypatch):
    monkeypatch.setattr(teacher, "MOST", {("goemo", "calm"): 4, ("mrda", "request"): 3})
    monkeypatch.setattr(teacher, "TWICE", frozenset({("mrda", "request"), ("3i4k", "expressive")}))
    kinds = [("goemo", "calm", ""), ("goemo", "playful", ""), ("mrda", "", "request"), ("mrda", "", "inquiry")]
    others = [each for kind in [*kinds, ("3i4k", "", "expressive")] for each in numbered(6, *kind)]
    sights = Counter(each.subject for each in shown([], others))
    found = Counter((subject.rpartition("/")[0], number) for subject, number in sights.items())
    assert found == {
        ("goemo/calm", 1): 4,
        ("goemo/playful", 1): 6,
        ("mrda/request", 2): 3,
        ("mrda/inquiry", 1): 6,
        ("3i4k/expressive", 2): 6,
    }


def test_a_lesson_is_the_same_for_the_same_seed_and_in_no_order():
    own, others = numbered(50, "ion", "calm"), numbered(50, "kote", "calm")
    assert shown(own, others) == shown(own, others) != shown(own, others, seed=1)
    sources = [each.source for each in shown(own, others)]
    assert sum(one != other for one, other in pairwise(sources)) > 40


@pytest.mark.parametrize(("source", "share"), [("mrda", 0.5), ("3i4k", 0.5), ("stylekqc", 0.5), ("kote", 0.15)])
def test_some_messages_are_shown_as_somebody_else_would_type_them(source, share):
    rows = numbered(2000, source, intent="inquiry")
    plain, otherwise = {each.text for each in rows}, {other_writing(each).text for each in rows}
    texts = [each.text for each in shown([], rows)]
    assert set(texts) <= plain | otherwise
    assert np.mean([text in otherwise for text in texts]) == pytest.approx(share, abs=0.05)


# Targets


def target(one):
    """The columns set, and the weights of the five parts: three heads at work, two in general."""
    targets, weights = teacher._targets([one])
    assert set(np.unique(targets)) <= {0, 1}
    return np.flatnonzero(targets[0]).tolist(), weights[0].tolist()


def test_labels_from_work_and_others_have_columns_of_their_own():
    tone, intent, topic = TONES[3], INTENTS[2], SUBJECTS[4]
    work = [3, HEADS[0] + 2, HEADS[0] + HEADS[1] + 4]
    assert target(row("hello", "ion", tone, intent, topic)) == (work, [1, 1, 0.5, 0, 0])
    assert target(row("hello", "goemo", tone)) == ([LABELLED + 3], [0, 0, 0, 1, 0])
    assert target(row("hello", "mrda", "", intent)) == ([LABELLED + HEADS[0] + 2], [0, 0, 0, 0, 1])


def test_what_was_not_annotated_counts_nothing():
    assert target(row("hello", "ion")) == ([], [0, 0, 0, 0, 0])
    assert target(row("hello", "ion", "", INTENTS[0])) == ([HEADS[0]], [0, 1, 0, 0, 0])


def test_made_up_messages_count_less():
    share = teacher.SHARES["seed"]
    assert 0 < share < 1
    assert target(row("hello", "seed", TONES[0], INTENTS[0]))[1] == pytest.approx([share, share, 0, 0, 0])


# Fitting


def toy(count, seed):
    """Messages from work and others, of fillers and the names of their labels; elsewhere the next label is right."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        tone, intent, topic = (int(rng.integers(size)) for size in HEADS)
        words = [TONES[tone], INTENTS[intent], SUBJECTS[topic], *rng.choice(FILLERS, 2)]
        text = " ".join(rng.permutation(words))
        if number % 2:
            rows.append(row(text, "ion", TONES[tone], INTENTS[intent], SUBJECTS[topic]))
        else:
            rows.append(row(text, "goemo", TONES[tone - 1], INTENTS[intent - 1]))
    return rows


@pytest.fixture(scope="module")
def fitted():
    """Parameters of two runs, and the progress of both."""
    steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(teacher, "_TOKENS", 128)  # batches of 16
        patch.setattr(teacher, "_HEAD_RATE", 2e-2)
        lesson = toy(3995, seed=0)
        both = [teacher.fit(SMALL, lesson, 0, lambda *step: steps.append(step)) for _ in range(2)]
    return *both, steps


def test_a_separable_task_is_learnt_at_work_and_in_general(fitted):
    rows = toy(400, seed=1)
    found = teacher.distributions(teacher.opinions(SMALL, fitted[0], [each.text for each in rows], quiet))
    for head, labels in enumerate(LABELS):
        for source, side in (("goemo", 0), ("ion", LABELLED)):
            chosen = [n for n, each in enumerate(rows) if each.source == source]
            if head == 2 and source == "goemo":
                continue  # no subject in general
            first = side + sum(HEADS[:head])
            guesses = found[chosen, first : first + HEADS[head]].argmax(1)
            truth = [labels.index((rows[n].tone, rows[n].intent, rows[n].topic)[head]) for n in chosen]
            assert np.mean(guesses == truth) > 0.95


def test_the_same_lesson_gives_the_same_parameters_to_the_bit(fitted):
    first, again = (jax.tree.leaves(params) for params in fitted[:2])
    assert [np.asarray(each).tobytes() for each in first] == [np.asarray(each).tobytes() for each in again]


def test_the_first_blocks_and_the_embeddings_stay_as_they_are(fitted):
    layers = fitted[0]["layers"]
    for name in ("position", "type", "norm_w", "norm_b"):
        assert np.array_equal(layers[name], SMALL.layers[name])
    same = [
        [np.array_equal(values, before[name]) for name, values in block.items()]
        for block, before in zip(layers["blocks"], SMALL.layers["blocks"], strict=True)
    ]
    assert all(same[0] + same[1])
    assert not any(each for each, name in zip(same[2], layers["blocks"][2], strict=True) if name != "kb")


def test_progress_goes_step_by_step_to_its_total(fitted):
    assert fitted[2] == [(number, 250) for number in range(1, 251)] * 2


def test_what_was_not_annotated_is_not_learnt():
    encoder = small_encoder(["calm", "request"], blocks=1)
    rows = [row("calm", "goemo", "calm"), row("request", "ion", "", "request"), row("hello", "ion")]
    batch = encoder.pack(encoder.tokens([each.text for each in rows]), 8, 4)
    given = [np.pad(each, ((0, 1), (0, 0))) for each in teacher._targets(rows)]
    bias = np.linspace(0, 1, teacher.COLUMNS)  # no label is as likely as the smoothing has it
    params = {"layers": encoder.layers, "head": np.zeros((encoder.width, teacher.COLUMNS)), "bias": bias}
    slopes = jax.grad(partial(teacher._loss, encoder))(params, jax.random.key(0), *batch, *given)["bias"]
    taught = np.r_[HEADS[0] : sum(HEADS[:2]), LABELLED : LABELLED + HEADS[0]]
    assert np.flatnonzero(slopes).tolist() == taught.tolist()


# Opinions


def test_opinions_are_the_same_in_whatever_company(fitted):
    rng = np.random.default_rng(3)
    texts = [" ".join(rng.choice([*FILLERS, *TONES], rng.choice([4, 6, 20, 120]))) for _ in range(60)]
    steps = []
    together = teacher.opinions(SMALL, fitted[0], texts, lambda *step: steps.append(step))
    assert together.shape == (60, teacher.COLUMNS)
    assert together.dtype == np.float16
    assert steps[-1] == (60, 60)
    few = list(range(50, 20, -1))
    assert np.allclose(teacher.opinions(SMALL, fitted[0], [texts[n] for n in few], quiet), together[few], atol=0.1)
    assert np.abs(together[:, np.newaxis] - together)[~np.eye(60, dtype=bool)].max(-1).min() > 0.1


def test_distributions_of_every_head_sum_to_1_in_general_and_at_work():
    logits = np.random.default_rng(0).normal(0, 30, (50, teacher.COLUMNS)).astype(np.float16)
    found = teacher.distributions(logits)
    assert found.shape == (50, 2 * LABELLED)
    for part in np.split(found, np.cumsum([*HEADS, *HEADS])[:-1], axis=1):
        assert np.allclose(part.sum(1), 1, atol=1e-5)
        assert part.min() >= 0


def test_distributions_are_in_general_then_at_work_with_the_same_subjects():
    logits = np.arange(teacher.COLUMNS, dtype=np.float16)[::-1][np.newaxis].copy()
    work, general = (3, 1, 2), (5, 2)
    starts = np.cumsum([0, *HEADS, *HEADS[:2]])
    for start, label in zip(starts, (*work, *general), strict=False):
        logits[0, start + label] = 100
    parts = np.split(teacher.distributions(logits)[0], np.cumsum([*HEADS, *HEADS])[:-1])
    assert [int(part.argmax()) for part in parts] == [*general, work[2], *work]
