"""What no single hedge can pass on the law of the delays: simulated, with nothing in between."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tests.fake_vertex.law import QUANTILES, total_seconds

# Calls slower than this quantile are hedged: 10 % extra calls.
HEDGED_FROM: Final = 0.9
DRAWS: Final = 1_000_000

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Simulated:
    """Seconds to the first text and to the whole reply."""

    first: Seconds
    whole: Seconds


@cache
def simulate(
    first_token_share: float | None = None, repeat_share: float = 0.0, *, first_text_wins: bool = False
) -> Simulated:
    """A call that is late gets one hedge: after `first_token_share` of the delay at the quantile where a first token
    comes so early, else after all of it. The reply is that of the call whose reply comes first, or whose first text
    does: a stream cannot change over. Repeats take no time."""
    random = np.random.default_rng(1)
    share = 1.0 if first_token_share is None else first_token_share
    late_after = share * total_seconds(HEDGED_FROM)
    call, hedge = _draw(random), _draw(random)
    is_late = share * call > late_after
    if first_text_wins:
        wins = is_late & (late_after + share * hedge < share * call)
    else:
        wins = is_late & (late_after + hedge < call)
    asked = random.random(DRAWS) >= repeat_share
    first = np.where(wins, late_after + share * hedge, share * call) * asked
    return Simulated(first, np.where(wins, late_after + hedge, call) * asked)


def _draw(random: np.random.Generator) -> Seconds:
    quantiles, seconds = zip(*QUANTILES, strict=True)
    return np.asarray(np.interp(random.random(DRAWS), quantiles, seconds), dtype=np.float64)
