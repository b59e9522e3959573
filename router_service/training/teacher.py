"""The teacher: a transformer fitted to the labelled messages, which then says of any message how it would be labelled.

Its opinions on far more messages than have labels are what the small reader learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
import optax

from router_service.analysis.reader import HEADS
from router_service.training.corpora import LABELS, Row, at_most, at_work, other_writing
from router_service.training.encoder import Encoder, Layers, batches

Progress = Callable[[int, int], None]
EPOCHS: Final = 3  # sights of each message of the own corpus; of the others one
# Most messages of a source and label: the commonest labels teach little more.
MOST: Final = {
    ("goemo", "calm"): 6500,
    ("goemo_ko_mt", "calm"): 6500,
    ("mrda", "statement"): 9000,
    ("3i4k", "statement"): 9500,
    ("3i4k", "inquiry"): 9500,
    ("stylekqc", "inquiry"): 1500,
    ("stylekqc", "request"): 1500,
}
TWICE: Final = frozenset({("3i4k", "expressive"), ("mrda", "request")})  # rare ones
SHARES: Final = {"seed": 0.3}  # of a source in the loss
_OTHER_WRITING: Final = {"mrda": 0.5, "3i4k": 0.5, "stylekqc": 0.5}  # how often shown as somebody else would type it
_OTHERWISE: Final = 0.15
_FROZEN: Final = 2  # blocks that stay as they are
_RATE: Final = 1e-4
_HEAD_RATE: Final = 2e-3
_TOKENS: Final = 1024  # a batch
_DROPOUT: Final = 0.1
_SMOOTHING: Final = 0.05
_TOGETHER: Final = 2048  # rows among which batches of about one length are made
_SCALE: Final = 4.0  # of the head's output: it learns as much faster
_LABELS: Final = sum(HEADS)
# Columns of the output: all three heads at work, tone and intent in general.
_PARTS: Final = (
    slice(0, HEADS[0]),
    slice(HEADS[0], HEADS[0] + HEADS[1]),
    slice(HEADS[0] + HEADS[1], _LABELS),
    slice(_LABELS, _LABELS + HEADS[0]),
    slice(_LABELS + HEADS[0], _LABELS + HEADS[0] + HEADS[1]),
)
COLUMNS: Final = _PARTS[-1].stop
_SUBJECT_WEIGHT: Final = 0.5


def lesson(own: Sequence[Row], others: Sequence[Row], rng: np.random.Generator) -> list[Row]:
    """What the teacher is shown, in the order drawn: rows, some as somebody else would type them."""
    shown = list(own) * EPOCHS
    for group in at_most(others, MOST, rng):
        rare = (group[0].source, group[0].intent) in TWICE
        shown += group * (2 if rare else 1)
    rewrite = rng.random(len(shown)) < [_OTHER_WRITING.get(row.source, _OTHERWISE) for row in shown]
    written = [other_writing(row) if other else row for row, other in zip(shown, rewrite, strict=True)]
    return [written[i] for i in rng.permutation(len(written)).tolist()]


def fit(encoder: Encoder, rows: Sequence[Row], seed: int, progress: Progress) -> Any:
    """The parameters after one pass over the rows."""
    rng = np.random.default_rng(seed)
    tokens = encoder.tokens([row.text for row in rows])
    targets, weights = _targets(rows)
    plan = list(_shuffled(tokens, rng))
    params = {
        "layers": jax.tree.map(jnp.asarray, encoder.layers),
        "head": jnp.asarray(rng.normal(0, 0.02, (encoder.width, COLUMNS)), jnp.float32),
        "bias": jnp.zeros(COLUMNS),
    }
    optimiser = _optimiser(params, len(plan))
    state = optimiser.init(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Any, state: Any, key: jax.Array, *batch: jax.Array) -> tuple[Any, Any]:
        gradients = jax.grad(partial(_loss, encoder))(params, key, *batch)
        updates, state = optimiser.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(seed)
    for number, (chosen, length, size) in enumerate(plan):
        words, mask = encoder.pack([tokens[i] for i in chosen], length, size)
        padding = ((0, size - len(chosen)), (0, 0))
        given = (np.pad(targets[chosen], padding), np.pad(weights[chosen], padding))
        params, state = step(params, state, jax.random.fold_in(key, number), words, mask, *given)
        progress(number + 1, len(plan))
    return params


def opinions(encoder: Encoder, params: Any, texts: Sequence[str], progress: Progress) -> np.ndarray:
    """Shape (texts, COLUMNS), float16: the logits."""

    run = jax.jit(lambda words, mask: _logits(encoder.encode(params["layers"], words, mask), params))

    tokens = encoder.tokens(texts)
    lengths = [len(each) for each in tokens]
    found = np.zeros((len(texts), COLUMNS), np.float16)
    done = 0
    for chosen, length, size in batches(lengths, sorted(range(len(texts)), key=lengths.__getitem__), 2 * _TOKENS):
        logits = run(*encoder.pack([tokens[i] for i in chosen], length, size))
        found[chosen] = np.asarray(logits)[: len(chosen)]
        done += len(chosen)
        progress(done, len(texts))
    return found


def distributions(logits: np.ndarray) -> np.ndarray:
    """Shape (texts, 2 * labels): probabilities in general, then at work. Subjects are the same in both."""
    parts = [_softmax(logits[:, part].astype(np.float32)) for part in _PARTS]
    return np.hstack((parts[3], parts[4], parts[2], parts[0], parts[1], parts[2]))


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    exponents /= exponents.sum(axis=1, keepdims=True)
    return exponents


def _targets(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Shapes (n, COLUMNS) and (n, parts): the labels, and how much each counts."""
    targets = np.zeros((len(rows), COLUMNS), np.float32)
    weights = np.zeros((len(rows), len(_PARTS)), np.float32)
    for number, row in enumerate(rows):
        share = SHARES.get(row.source, 1.0)
        for head, label in enumerate((row.tone, row.intent, row.topic)):
            if label and (at_work(row) or head < 2):
                part = head if at_work(row) else head + len(HEADS)
                targets[number, _PARTS[part].start + LABELS[head].index(label)] = 1
                weights[number, part] = share * (_SUBJECT_WEIGHT if head == 2 else 1.0)
    return targets, weights


def _shuffled(tokens: Sequence[Sequence[int]], rng: np.random.Generator) -> Iterator[tuple[list[int], int, int]]:
    lengths = [len(each) for each in tokens]
    for at in range(0, len(tokens), _TOGETHER):
        near = sorted(range(at, min(at + _TOGETHER, len(tokens))), key=lengths.__getitem__)
        made = list(batches(lengths, near, _TOKENS))
        yield from (made[i] for i in rng.permutation(len(made)))


def _optimiser(params: Any, steps: int) -> optax.GradientTransformation:
    course = optax.warmup_cosine_decay_schedule(0.0, 1.0, steps // 10, steps, 0.02)
    labels = jax.tree.map(lambda _: "frozen", params)
    for block in labels["layers"]["blocks"][_FROZEN:]:
        block.update(dict.fromkeys(block, "layers"))
    labels |= {"head": "head", "bias": "head"}
    parts = {
        "layers": optax.adamw(lambda step: _RATE * course(step), weight_decay=0.01),
        "head": optax.adamw(lambda step: _HEAD_RATE * course(step)),
        "frozen": optax.set_to_zero(),
    }
    return optax.chain(optax.clip_by_global_norm(1.0), optax.multi_transform(parts, labels))


def _logits(states: jax.Array, params: Any) -> jax.Array:
    logits: jax.Array = states @ params["head"] * _SCALE + params["bias"]
    return logits


def _loss(
    encoder: Encoder, params: Any, key: jax.Array, words: jax.Array, mask: jax.Array, targets: jax.Array,
    weights: jax.Array,
) -> jax.Array:  # fmt: skip
    layers = _with_frozen(params["layers"])
    logits = _logits(encoder.encode(layers, words, mask, _DROPOUT, key), params)
    total = jnp.zeros(())
    for number, part in enumerate(_PARTS):
        smooth = targets[:, part] * (1 - _SMOOTHING) + _SMOOTHING / (part.stop - part.start)
        total -= (weights[:, number] * (smooth * jax.nn.log_softmax(logits[:, part])).sum(1)).sum()
    return total / len(targets)


def _with_frozen(layers: Layers) -> Layers:
    """The same, without gradients for what stays as it is: they would be worked out in vain."""
    frozen = jax.tree.map(jax.lax.stop_gradient, {name: value for name, value in layers.items() if name != "blocks"})
    first = [jax.tree.map(jax.lax.stop_gradient, block) for block in layers["blocks"][:_FROZEN]]
    return frozen | {"blocks": [*first, *layers["blocks"][_FROZEN:]]}
