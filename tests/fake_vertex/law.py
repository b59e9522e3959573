"""How long the model takes: the law of the performance report, drawn from a seed."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

# Total time of a reply in seconds, by quantile; linear between.
QUANTILES: Final = ((0.0, 0.25), (0.1, 0.4), (0.5, 0.8), (0.9, 1.5), (0.95, 1.8), (0.99, 4.2), (1.0, 5.0))
_STARTS: Final = tuple(quantile for quantile, _ in QUANTILES[:-1])
_SEGMENTS: Final = tuple(pairwise(QUANTILES))


def total_seconds(quantile: float) -> float:
    """The total time at a quantile, 0 to 1."""
    (left, shortest), (right, longest) = _SEGMENTS[bisect_right(_STARTS, quantile) - 1]
    return shortest + (longest - shortest) * (quantile - left) / (right - left)


@dataclass(frozen=True, slots=True)
class Delay:
    """Seconds to the first token, and from there to the end."""

    first_seconds: float
    rest_seconds: float = 0.0

    @property
    def total_seconds(self) -> float:
        return self.first_seconds + self.rest_seconds


class LatencyLaw:
    """One delay after the other, the same ones for the same seed and location; independent of each other, and of those
    of other locations. `first_token_share` of the total passes before the first token; None: all of it. `scale`
    multiplies all times."""

    def __init__(
        self, *, seed: int | str, location: str = "", first_token_share: float | None = None, scale: float = 1.0
    ) -> None:
        self._random = random.Random(f"{seed}@{location}")
        self._share = 1.0 if first_token_share is None else first_token_share
        self._scale = scale

    def draw(self) -> Delay:
        total = self._scale * total_seconds(self._random.random())
        return Delay(self._share * total, (1 - self._share) * total)
