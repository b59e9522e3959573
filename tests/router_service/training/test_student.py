"""The student that is fitted is the reader that is run, and learns."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router_service.analysis.features import NO_BUCKET, extract, readable
from router_service.analysis.reader import COLUMNS, HEADS, Reader, save_weights
from router_service.training import student
from router_service.training.student import Examples, Options, grams_of
from router_service.training.train import quantised

LABELS = sum(HEADS)
TEXTS = [
    "배포가 또 깨졌어요... 왜죠?!",
    "The build is red again, and nobody knows why",
    "",
    "ok",
    "?!",
    "\ud800 İ\u0301 👩\u200d💻",
    "서버 down " * 300,
    "100% sure\n\nㅋㅋㅋㅋ ㅠㅠ",
]
any_text = st.text(st.characters(exclude_categories=()), max_size=40)
chat_text = st.text(st.sampled_from("가나다서버ㅋㅠ abcdeAB 019 .!?'\n👩"), max_size=40)
texts = st.lists(st.one_of(any_text, chat_text), min_size=1, max_size=6)


def quiet(done, total):
    pass


def buckets_of(text):
    """As the reader sees them."""
    found = extract([readable(text)])
    whole = np.concatenate([each.ravel() for each in (found.characters, found.words, found.counts)])
    return Counter(whole[whole != NO_BUCKET].tolist())


# N-grams


@given(texts)
@example(TEXTS * 17)
def test_every_text_has_its_buckets_each_at_one_of_its_words(messages):
    grams = grams_of(messages)
    assert len(grams) == len(messages)
    assert len(grams.buckets) == len(grams.places) == grams.offsets[-1]
    for number, message in enumerate(messages):
        run = slice(*grams.offsets[number : number + 2])
        assert Counter(grams.buckets[run].tolist()) == buckets_of(message)
        assert grams.words[number] == np.diff(extract([readable(message)]).word_edges)[0]
        assert grams.places[run].min() >= 0
        assert grams.places[run].max() < grams.words[number]


@given(texts, st.integers(0, 2**32))
def test_of_kept_buckets_alone_there_are_rows_in_their_order(messages, seed):
    grams = grams_of(messages)
    every = np.unique(grams.buckets)
    kept = every[np.random.default_rng(seed).random(len(every)) < 0.5]
    only = grams.only(kept)
    assert np.array_equal(only.words, grams.words)
    for number in range(len(messages)):
        before, after = slice(*grams.offsets[number : number + 2]), slice(*only.offsets[number : number + 2])
        there = np.isin(grams.buckets[before], kept)
        assert np.array_equal(kept[only.buckets[after]], grams.buckets[before][there])
        assert np.array_equal(only.places[after], grams.places[before][there])


@given(texts, st.data())
def test_a_batch_has_the_buckets_of_its_texts_in_order_and_is_padded(messages, data):
    grams = grams_of(messages)
    chosen = np.array(data.draw(st.lists(st.integers(0, len(messages) - 1), min_size=1, max_size=5)))
    size = grams.size(chosen)
    assert size == sum(np.diff(grams.offsets)[each] for each in chosen)
    keep = np.random.default_rng(data.draw(st.integers(0, 9))).random(size) < 0.5 if data.draw(st.booleans()) else None
    buckets, words, owners = grams.batch(chosen, padding=-7, keep=keep)
    expected, first = [], 0
    for each in chosen:
        run = slice(*grams.offsets[each : each + 2])
        expected += zip(grams.buckets[run].tolist(), (grams.places[run] + first).tolist(), strict=True)
        first += grams.words[each]
    if keep is not None:
        expected = [pair for pair, stays in zip(expected, keep, strict=True) if stays]
    assert list(zip(buckets.tolist(), words.tolist(), strict=True))[: len(expected)] == expected
    assert owners[:first].tolist() == np.repeat(range(len(chosen)), grams.words[chosen]).tolist()
    # What pads is a word of no text, and there is one.
    assert set(buckets[len(expected) :]) <= {-7}
    assert set(words[len(expected) :]) <= {first}
    assert set(owners[first:]) == {len(chosen)}
    assert len(buckets) % student._STEP == len(owners) % student._WORD_STEP == 0


def test_there_is_a_word_that_pads_however_many_words_there_are():
    grams = grams_of(["ok"])
    _, words, owners = grams.batch(np.zeros(student._WORD_STEP, int), padding=-7)
    assert grams.words[0] * student._WORD_STEP < len(owners)
    assert owners[-1] == student._WORD_STEP
    assert words.max() < len(owners)


# What is fitted is what is run

OPTIONS = Options(rows=0, width=8, over_words=6, hidden=5)


@pytest.fixture(scope="module")
def fitted_and_run(tmp_path_factory):
    """Parameters as fitted and as quantised, the buckets that they are for, and the reader loaded from a file."""
    every = np.unique(grams_of(TEXTS[:-1]).buckets)
    kept = every[::2]
    rng = np.random.default_rng(0)
    params = {
        name: jnp.asarray(rng.normal(0, 0.5, value.shape), jnp.float32)
        for name, value in student.initial(replace(OPTIONS, rows=len(kept))).items()
    }
    params["embedding"] = params["embedding"].at[-1].set(0)
    weights = quantised(params, kept)
    path = tmp_path_factory.mktemp("weights") / "reader.npz"
    save_weights(weights, path, version="1")
    embedding = np.vstack((weights.embedding * weights.scale, np.zeros((1, OPTIONS.width), np.float32)))
    return params, params | {"embedding": jnp.asarray(embedding)}, kept, Reader.load(path)


run = jax.jit(student.columns, static_argnums=2)


def columns(params, kept, messages):
    grams = grams_of(messages).only(kept)
    return np.asarray(run(params, grams.batch(np.arange(len(messages)), len(kept)), len(messages)))


def test_columns_are_the_readers(fitted_and_run):
    params, exact, kept, reader = fitted_and_run
    found = reader.columns(TEXTS)
    assert found.std(axis=0).min() > 0.1
    assert np.allclose(columns(exact, kept, TEXTS), found, atol=1e-3)
    quantisation = np.abs(columns(params, kept, TEXTS) - found).max()
    assert 1e-3 < quantisation < 0.05 * found.std()


@settings(deadline=None)  # the first is compiled
@given(st.lists(st.one_of(any_text, chat_text, st.sampled_from(TEXTS)), min_size=3, max_size=3))
def test_columns_are_the_readers_for_any_texts(fitted_and_run, messages):
    _, exact, kept, reader = fitted_and_run
    assert np.allclose(columns(exact, kept, messages), reader.columns(messages), atol=1e-3)


def test_columns_are_the_same_in_whatever_company(fitted_and_run):
    params, _, kept, _ = fitted_and_run
    together = columns(params, kept, TEXTS)
    for number in (0, 2, 4):
        assert np.allclose(columns(params, kept, TEXTS[number : number + 1]), together[number], atol=1e-4)


def test_the_blend_is_between_in_general_and_at_work():
    found = np.zeros((3, COLUMNS), np.float32)
    found[:, :LABELS], found[:, LABELS:-1] = 1, 3
    found[:, -1] = [-30, 0, 30]
    assert np.allclose(student.blend(found), np.repeat([[1.0], [2.0], [3.0]], LABELS, axis=1))


def test_padding_begins_as_nothing():
    first = student.initial(replace(OPTIONS, rows=10))
    assert first["embedding"].shape == (11, OPTIONS.width)
    assert np.array_equal(first["embedding"][-1], np.zeros(OPTIONS.width))
    assert np.abs(first["embedding"][:-1]).min() > 0
    assert not np.array_equal(student.initial(replace(OPTIONS, rows=10, seed=1))["embedding"], first["embedding"])


# Fitting

WORDS = ["apple", "brook", "cloud", "dough", "eagle", "flame", "grape", "honey", "ivory"]
TONES = HEADS[0]


def toy(count, seed):
    """Texts with a word for a tone, where in general the tone before and at work the one after is thought likelier; a
    word for work; and one for an intent, which is a label."""
    rng = np.random.default_rng(seed)
    tone, intent, work = (
        rng.integers(TONES, size=count),
        rng.integers(HEADS[1], size=count),
        rng.integers(2, size=count),
    )
    messages = [
        " ".join(rng.permutation([WORDS[t], f"quince{'xyzw'[i]}", "deploy" if w else "movie", "and", "then"]))
        for t, i, w in zip(tone, intent, work, strict=True)
    ]
    return messages, tone, intent, work


def examples(messages, tone, intent, work, kept):
    count = len(messages)
    targets, weights = np.zeros((count, LABELS), np.float32), np.zeros((count, len(HEADS)), np.float32)
    targets[np.arange(count), HEADS[0] + intent] = 1
    weights[:, 1] = 1
    opinions = np.zeros((count, 2 * LABELS), np.float32)
    opinions[np.arange(count), (tone - 1) % TONES] = 1
    opinions[np.arange(count), LABELS + (tone + 1) % TONES] = 1
    grams = grams_of(messages).only(kept)
    sides = np.ones((count, 2), np.float32)
    return Examples(grams, targets, weights, opinions, sides, work.astype(np.float32), np.ones(count, np.int64))


TAUGHT = toy(512, seed=0)
SEEN = grams_of(TAUGHT[0]).buckets
UNSEEN = np.setdiff1d(np.arange(1000), SEEN)[:5]  # buckets
KEPT = np.union1d(SEEN, UNSEEN)
TOY_OPTIONS = Options(len(KEPT), width=16, over_words=16, hidden=16, epochs=12, batch=32, rate=1e-2)


@pytest.fixture(scope="module")
def learnt():
    return [student.fit(examples(*TAUGHT, KEPT), TOY_OPTIONS, quiet) for _ in range(2)]


def test_labels_opinions_of_either_side_and_the_gate_are_learnt(learnt):
    messages, tone, intent, work = toy(200, seed=1)
    found = columns(learnt[0], KEPT, messages)
    blended = np.asarray(student.blend(found))
    assert np.mean(found[:, :TONES].argmax(1) == (tone - 1) % TONES) > 0.95
    assert np.mean(found[:, LABELS : LABELS + TONES].argmax(1) == (tone + 1) % TONES) > 0.95
    assert np.mean(blended[:, HEADS[0] : HEADS[0] + HEADS[1]].argmax(1) == intent) > 0.95
    assert np.mean((found[:, -1] > 0) == work) > 0.95


def test_the_same_examples_give_the_same_parameters_to_the_bit(learnt):
    first, again = ({name: np.asarray(value).tobytes() for name, value in params.items()} for params in learnt)
    assert first == again


def test_embeddings_of_padding_and_of_what_is_never_seen_stay_as_they_began(learnt):
    begun, ended = student.initial(TOY_OPTIONS)["embedding"], learnt[0]["embedding"]
    rows = [*np.searchsorted(KEPT, UNSEEN), len(KEPT)]
    same = (begun == ended).all(axis=1)
    assert same[np.array(rows)].all()
    assert same.sum() < 0.1 * len(KEPT)


def test_an_epoch_shows_each_text_as_often_as_it_says(learnt):
    few = examples(*(each[:6] for each in TAUGHT), KEPT)
    shown = replace(few, sightings=np.array([0, 1, 2, 3, 0, 4]))
    steps = []
    options = replace(TOY_OPTIONS, batch=5, epochs=3)
    params = student.fit(shown, options, lambda *step: steps.append(step))
    assert steps == [(number, 6) for number in range(1, 7)]
    hidden = replace(shown, targets=few.targets.copy(), opinions=few.opinions.copy())
    hidden.targets[[0, 4]], hidden.opinions[[0, 4]] = 9, 9  # of texts that are never shown
    assert all(np.array_equal(value, params[name]) for name, value in student.fit(hidden, options, quiet).items())


@pytest.fixture(scope="module")
def loss():
    """Of the few first of the toy, with changes."""
    params = student.initial(TOY_OPTIONS)
    few = examples(*(each[:6] for each in TAUGHT), KEPT)
    step = jax.jit(partial(student._loss, options=TOY_OPTIONS))

    def of(changed=None, **changes):
        given = replace(few, **changes)
        batch = (given.targets, given.weights, given.opinions, given.opinion_weights, given.work)
        return float(
            step(params | (changed or {}), jax.random.key(0), few.grams.batch(np.arange(6), len(KEPT)), *batch)
        )

    return of


def test_what_counts_nothing_is_not_learnt(loss):
    other = np.random.default_rng(0).random((6, 2 * LABELS), np.float32)
    none, heads = np.zeros((6, 2), np.float32), np.zeros((6, len(HEADS)), np.float32)
    assert loss(opinions=other) != loss()
    assert loss(opinions=other, opinion_weights=none) == loss(opinion_weights=none) < loss()
    assert loss(targets=other[:, :LABELS]) != loss()
    assert loss(targets=other[:, :LABELS], weights=heads) == loss(weights=heads) < loss()


def test_where_work_means_nothing_the_gate_is_not_learnt(loss):
    heads = {"weights": np.zeros((6, len(HEADS)), np.float32)}  # labels are blended by the gate
    wider = {"bias": jnp.zeros(COLUMNS).at[-1].set(5)}
    nowhere = np.full(6, -1, np.float32)
    assert loss(**heads) != loss(wider, **heads)
    assert loss(work=nowhere, **heads) == loss(wider, work=nowhere, **heads)
