"""Fits the student: embeddings of n-grams, a layer over neighbouring words, and a small network over the message.

It is what `router_service.analysis.reader` runs, in JAX so that it can be fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from router_service.analysis.features import BUCKETS, MAX_TOGETHER, NO_BUCKET, Features, extract, readable
from router_service.analysis.reader import COLUMNS, HEADS

Params = dict[str, jax.Array]
Batch = tuple[np.ndarray, ...]
_LABELS: Final = sum(HEADS)
_PARTS: Final = tuple(slice(sum(HEADS[:at]), sum(HEADS[: at + 1])) for at in range(len(HEADS)))
# Buckets and words of a batch are padded to a multiple of these, so that few shapes are compiled.
_STEP: Final = 8192
_WORD_STEP: Final = 1024


@dataclass(frozen=True)
class Grams:
    """The buckets of texts. Those of text i are `buckets[offsets[i] : offsets[i + 1]]`, each with the place of its word
    in the text; the text has `words[i]` of them."""

    buckets: np.ndarray
    places: np.ndarray
    offsets: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.words)

    def only(self, kept: np.ndarray) -> Grams:
        """With the places of the kept buckets instead of the buckets, and without the others."""
        row = np.full(BUCKETS, -1, np.int32)
        row[kept] = np.arange(len(kept), dtype=np.int32)
        rows = row[self.buckets]
        known = rows >= 0
        return Grams(rows[known], self.places[known], np.concatenate(([0], np.cumsum(known)))[self.offsets], self.words)

    def batch(self, texts: np.ndarray, padding: int, keep: np.ndarray | None = None) -> Batch:
        """Buckets, the number of each one's word in the batch, and of each word its text; padded. `keep`, shape
        (buckets of the batch,), leaves some out."""
        first, counts = self.offsets[texts], np.diff(self.offsets)[texts]
        at = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
        starts = np.cumsum(self.words[texts]) - self.words[texts]
        buckets, words = self.buckets[at], self.places[at] + np.repeat(starts, counts).astype(np.int32)
        owners = np.repeat(np.arange(len(texts), dtype=np.int32), self.words[texts])
        if keep is not None:
            buckets, words = buckets[keep], words[keep]
        return (
            _padded(buckets, _STEP, padding),
            _padded(words, _STEP, len(owners)),
            _padded(owners, _WORD_STEP, len(texts), at_least=1),
        )

    def size(self, texts: np.ndarray) -> int:
        return int(np.diff(self.offsets)[texts].sum())


def _padded(values: np.ndarray, step: int, filler: int, at_least: int = 0) -> np.ndarray:
    short = -(len(values) + at_least) % step + at_least
    return np.concatenate((values, np.full(short, filler, values.dtype)))


def grams_of(texts: Sequence[str]) -> Grams:
    """As the reader sees them."""
    parts = [
        _grams(extract([readable(text) for text in texts[at : at + MAX_TOGETHER]]))
        for at in range(0, len(texts), MAX_TOGETHER)
    ]
    buckets, places, counts, words = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Grams(buckets, places, np.concatenate(([0], np.cumsum(counts))), words)


def _grams(features: Features) -> tuple[np.ndarray, ...]:
    """Buckets, their words' places, and for each message how many buckets and words there are."""
    messages = np.arange(len(features.starts))
    first_words = features.word_edges[:-1]
    of_columns = np.repeat(messages, features.ends - features.starts)
    of_words = np.repeat(messages, np.diff(features.word_edges))
    columns = np.searchsorted(features.word_spans[0], np.arange(features.characters.shape[1]), "right") - 1
    columns = np.maximum(columns - first_words[of_columns], 0)
    words = np.arange(features.words.shape[1]) - first_words[of_words]
    sizes, shown = len(features.characters), len(features.words)
    buckets = np.concatenate([each.ravel() for each in (features.characters, features.words, features.counts)])
    owners = np.concatenate(
        (np.tile(of_columns, sizes), np.tile(of_words, shown), np.repeat(messages, features.counts.shape[1]))
    )
    places = np.concatenate((np.tile(columns, sizes), np.tile(words, shown), np.zeros(features.counts.size, np.int64)))
    real = np.flatnonzero(buckets != NO_BUCKET)
    order = real[np.argsort(owners[real], kind="stable")]
    counts = np.bincount(owners[real], minlength=len(messages))
    return buckets[order].astype(np.int32), places[order].astype(np.int32), counts, np.diff(features.word_edges)


@dataclass(frozen=True)
class Examples:
    """`targets` and `weights`, shapes (n, labels) and (n, heads): the labels given, and how much each counts.
    `opinions` and `opinion_weights`, shapes (n, 2 * labels) and (n, 2): the teacher's, in general and at work. `work`,
    shape (n,), is 1 for a message from work, 0 for another, -1 where that means nothing. `sightings`, shape (n,), is
    how often an epoch shows each."""

    grams: Grams
    targets: np.ndarray
    weights: np.ndarray
    opinions: np.ndarray
    opinion_weights: np.ndarray
    work: np.ndarray
    sightings: np.ndarray


@dataclass(frozen=True)
class Options:
    """How to fit. `gram_dropout` is the share of a message's n-grams left out at each sight of it."""

    rows: int
    width: int = 32
    over_words: int = 96
    hidden: int = 64
    epochs: int = 6
    batch: int = 256
    rate: float = 2e-3
    gram_dropout: float = 0.4
    dropout: float = 0.1
    decay: float = 0.01
    given: float = 1.0
    gate: float = 0.5
    seed: int = 0


def initial(options: Options) -> Params:
    """Small random weights; the last embedding is that of padding and stays zero."""
    rng = np.random.default_rng(options.seed)
    summary = options.width + 2 * options.over_words

    def normal(*shape: int, scale: float) -> jax.Array:
        return jnp.asarray(rng.normal(0, scale, shape), jnp.float32)

    return {
        "embedding": normal(options.rows + 1, options.width, scale=0.05).at[-1].set(0),
        "window": normal(3 * options.width, options.over_words, scale=(3 * options.width) ** -0.5),
        "window_bias": jnp.zeros(options.over_words),
        "hidden": normal(summary, options.hidden, scale=summary**-0.5),
        "hidden_bias": jnp.zeros(options.hidden),
        "out": normal(options.hidden, COLUMNS, scale=options.hidden**-0.5),
        "skip": normal(summary, COLUMNS, scale=0.3 * summary**-0.5),
        "bias": jnp.zeros(COLUMNS),
    }


def columns(
    params: Params, grams: tuple[jax.Array, ...], count: int,
    keep: Callable[[jax.Array, int], jax.Array] = lambda values, layer: values,
) -> jax.Array:  # fmt: skip
    """Shape (count, COLUMNS). `grams` are as of a batch; `keep` is dropout, or the identity."""
    buckets, words, owners = grams

    def over_texts(values: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(values, owners, count + 1)[:count]

    known = (buckets != len(params["embedding"]) - 1).astype(jnp.float32)
    sums = jax.ops.segment_sum(params["embedding"][buckets], words, len(owners))
    found = jax.ops.segment_sum(known, words, len(owners))
    vectors = sums / jnp.sqrt(jnp.maximum(found, 1))[:, None]
    bags = over_texts(sums) / jnp.sqrt(jnp.maximum(over_texts(found), 1))[:, None]
    same = (owners[1:] == owners[:-1])[:, None]
    edge = jnp.zeros((1, vectors.shape[1]))
    before, after = jnp.concatenate((edge, vectors[:-1] * same)), jnp.concatenate((vectors[1:] * same, edge))
    state = jax.nn.relu(jnp.hstack((before, vectors, after)) @ params["window"] + params["window_bias"])
    even = over_texts(state) / jnp.sqrt(jnp.maximum(over_texts(jnp.ones(len(owners))), 1))[:, None]
    most = jnp.maximum(jax.ops.segment_max(state, owners, count + 1)[:count], 0)
    summary = keep(jnp.hstack((bags, even, most)), 0)
    hidden = keep(jax.nn.relu(summary @ params["hidden"] + params["hidden_bias"]), 1)
    return hidden @ params["out"] + summary @ params["skip"] + params["bias"]


def blend(found: jax.Array) -> jax.Array:
    """Shape (n, labels): between the logits in general and those at work, as the gate says."""
    share = jax.nn.sigmoid(found[:, -1:])
    return found[:, :_LABELS] * (1 - share) + found[:, _LABELS:-1] * share


def _loss(
    params: Params, key: jax.Array, grams: tuple[jax.Array, ...], targets: jax.Array, weights: jax.Array,
    opinions: jax.Array, opinion_weights: jax.Array, work: jax.Array, *, options: Options,
) -> jax.Array:  # fmt: skip
    def keep(values: jax.Array, layer: int) -> jax.Array:
        mask = jax.random.bernoulli(jax.random.fold_in(key, layer), 1 - options.dropout, values.shape)
        return values * mask / (1 - options.dropout)

    found = columns(params, grams, len(targets), keep)
    gate = optax.sigmoid_binary_cross_entropy(found[:, -1], jnp.maximum(work, 0))
    total = options.gate * jnp.where(work < 0, 0, gate).mean()
    mixed = blend(found)
    for head, part in enumerate(_PARTS):
        total += options.given * (weights[:, head] * _cross_entropy(targets[:, part], mixed[:, part])).mean()
        for side, first in enumerate((0, _LABELS)):
            there = slice(first + part.start, first + part.stop)
            apart = _cross_entropy(opinions[:, there], found[:, there])
            total += (0.5 if head == 2 else 1.0) * (opinion_weights[:, side] * apart).mean()
    return total


def _cross_entropy(targets: jax.Array, logits: jax.Array) -> jax.Array:
    return -(targets * jax.nn.log_softmax(logits)).sum(1)


def fit(examples: Examples, options: Options, progress: Callable[[int, int], None]) -> Params:
    """Minimises the loss with AdamW under a one-cycle rate."""
    rng = np.random.default_rng(options.seed + 1)
    order = np.repeat(np.arange(len(examples.grams)), examples.sightings)
    steps = options.epochs * (len(order) // options.batch)
    optimiser = optax.adamw(
        optax.cosine_onecycle_schedule(steps, options.rate, pct_start=0.1),
        b2=0.99,
        weight_decay=options.decay,
        mask=lambda params: {name: name != "embedding" for name in params},
    )
    params = initial(options)
    state = optimiser.init(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: optax.OptState, *batch: object) -> tuple[Params, optax.OptState]:
        gradients = jax.grad(partial(_loss, options=options))(params, *batch)
        updates, state = optimiser.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(options.seed)
    number = 0
    for _ in range(options.epochs):
        shuffled = rng.permutation(order)
        for at in range(0, len(shuffled) - options.batch + 1, options.batch):
            texts = shuffled[at : at + options.batch]
            keep = rng.random(examples.grams.size(texts), dtype=np.float32) >= options.gram_dropout
            grams = examples.grams.batch(texts, options.rows, keep)
            given = (examples.targets, examples.weights, examples.opinions, examples.opinion_weights, examples.work)
            params, state = step(
                params, state, jax.random.fold_in(key, number), grams, *(values[texts] for values in given)
            )
            number += 1
            progress(number, steps)
    return params
