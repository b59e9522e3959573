"""A random encoder of three blocks over a few words, so that fitting one takes seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from router_service.training.encoder import LENGTHS, Encoder, Layers

SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")


def small_encoder(vocabulary: Sequence[str], width: int = 32, blocks: int = 3) -> Encoder:
    rng = np.random.default_rng(7)
    pieces = {word: number for number, word in enumerate((*SPECIAL, *vocabulary))}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token=SPECIAL[3]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.5 * shape[0] ** -0.5, shape).astype(np.float32)

    def block() -> Layers:
        sizes = {"q": (width, width), "k": (width, width), "v": (width, width), "ao": (width, width)}
        sizes |= {"fi": (width, 2 * width), "fo": (2 * width, width)}
        products = {f"{name}w": normal(*size) for name, size in sizes.items()}
        biases = {f"{name}b": np.zeros(size[1], np.float32) for name, size in sizes.items()}
        ones = {f"{name}w": np.ones(width, np.float32) for name in ("al", "ol")}
        return products | biases | ones | {f"{name}b": np.zeros(width, np.float32) for name in ("al", "ol")}

    layers = {
        "position": 0.1 * rng.normal(size=(LENGTHS[-1], width)).astype(np.float32),
        "type": np.zeros(width, np.float32),
        "norm_w": np.ones(width, np.float32),
        "norm_b": np.zeros(width, np.float32),
        "blocks": [block() for _ in range(blocks)],
    }
    words = rng.normal(size=(len(pieces), width)).astype(np.float16)
    return Encoder(words, layers, heads=4, epsilon=1e-5, bos=0, eos=1, padding=2, tokenizer=tokenizer)
