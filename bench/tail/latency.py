"""Latency under the law of the performance report, before and ours in turn, the same seeds for both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bench.tail import loads, parts
from bench.tail.client import ANSWERED_SECONDS, Plan
from bench.tail.loads import Load, pooled
from bench.tail.parts import Fakes, Gateway

PERCENTILES: Final = (50.0, 95.0, 99.0)
# Replies are repeated after the longest of model calls: until then there is nothing to repeat.
WARM_SECONDS: Final = ANSWERED_SECONDS + 1
# A gateway learns from the calls of its first seconds when a call is late.
LEARNING: Final = 600
LEARNING_RATE: Final = 150
FIRST_TOKEN_SHARE: Final = 0.3

# Near caches hold what is repeated at 300 requests a second, which the default of 1000 replies does not for 20 s.
ROOMY: Final = {"ION_CACHE_MAX_ENTRIES": "20000"}
GATEWAYS: Final = {
    "before": {"ION_HEDGE": "off", "ION_CACHE_MAX_ENTRIES": "0"},
    "late reply": {"ION_HEDGE": "reply"} | ROOMY,
    "late first token": {"ION_HEDGE": "first-token"} | ROOMY,
}


@dataclass(frozen=True)
class Case:
    """What is asked, and which gateway is ours for it."""

    name: str
    ours: str
    first_token_share: float | None = None
    repeat_share: float = 0.0
    method: str = "Generate"


CASES: Final = (
    Case("distinct", "late reply"),
    Case("35 % repeats", "late reply", repeat_share=0.35),
    Case("early first token", "late first token", FIRST_TOKEN_SHARE),
    Case("early first token, streamed", "late first token", FIRST_TOKEN_SHARE, method="StreamGenerate"),
)


@dataclass
class Cell:
    """The runs of one gateway under one load, in order of rounds."""

    case: str
    rate: int
    who: str
    runs: list[Load] = field(default_factory=list)
    model_calls: int = 0
    first_calls: int = 0  # of those, what the answers needed
    counted: Counter[str] = field(default_factory=Counter)  # by the gateway: hedges, retries and the like

    @property
    def load(self) -> Load:
        return pooled(self.runs)

    @property
    def extra(self) -> float:
        """Model calls above one a request that the cache did not answer, as a share of these."""
        return (self.model_calls - self.first_calls) / max(1, self.first_calls)

    def percentiles(self, of: str = "seconds") -> list[float]:
        """Over all rounds; `of` is "seconds" or "first"."""
        return [float(value) for value in np.percentile(getattr(self.load, of), PERCENTILES)]

    def spread(self, percentile: float, of: str = "seconds") -> tuple[float, float]:
        """Least and most of the rounds."""
        values = [float(np.percentile(getattr(run, of), percentile)) for run in self.runs]
        return min(values), max(values)


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, and seconds of a round by requests a second."""

    rounds: int
    seconds: dict[int, float]


def measure(effort: Effort, advance: Callable[[], None]) -> list[Cell]:
    cells = {
        (case, rate): (Cell(case.name, rate, "before"), Cell(case.name, rate, "ours")) for case, rate in _all(effort)
    }
    with ExitStack() as stack:
        fakes = stack.enter_context(parts.fakes())
        gateways = {name: stack.enter_context(parts.gateway(fakes.env() | env)) for name, env in GATEWAYS.items()}
        for name, gateway in gateways.items():
            _learn(name, gateway, fakes)
        for number in range(effort.rounds):
            for (case, rate), pair in cells.items():
                for cell, gateway in zip(pair, (gateways["before"], gateways[case.ours]), strict=True):
                    _run(cell, gateway, fakes, case, number, effort.seconds[rate])
                    advance()
    return [cell for pair in cells.values() for cell in pair]


def runs_of(effort: Effort) -> int:
    return 2 * effort.rounds * sum(1 for _ in _all(effort))


def _all(effort: Effort) -> Iterator[tuple[Case, int]]:
    """Streams at the lower rate alone: they take the same way through the gateway."""
    for case in CASES:
        for rate in effort.seconds:
            if case.method == "Generate" or rate == min(effort.seconds):
                yield case, rate


def _learn(name: str, gateway: Gateway, fakes: Fakes) -> None:
    share = FIRST_TOKEN_SHARE if name == "late first token" else None
    fakes.tell(law_of("learning", share))
    loads.run(Plan(gateway.target, count=LEARNING, key="learning", rate=LEARNING_RATE))


def _run(cell: Cell, gateway: Gateway, fakes: Fakes, case: Case, number: int, seconds: float) -> None:
    fakes.tell(law_of(str(number), case.first_token_share))
    calls, counts = fakes.calls(), _counts(gateway)
    plan = Plan(
        gateway.target,
        count=round(cell.rate * (WARM_SECONDS + seconds)),
        key=f"{case.name} {cell.rate} {number}",
        rate=cell.rate,
        seed=number,
        method=case.method,
        repeat_share=case.repeat_share,
    )
    load = loads.run(plan)
    cell.runs.append(load.after(WARM_SECONDS))
    cell.model_calls += fakes.calls() - calls
    cell.counted.update(_counts(gateway) - counts)
    cell.first_calls += len(load) - load.spared


def _counts(gateway: Gateway) -> Counter[str]:
    """Those that only grow."""
    calls = gateway.statistics().calls
    names = ("hedges", "hedges_won", "hedges_denied", "retries", "retries_denied", "shed")
    return Counter({name: getattr(calls, name) for name in names})


def law_of(seed: str, first_token_share: float | None = None) -> str:
    return f"law={seed}" + (f",{first_token_share}" if first_token_share is not None else "")
