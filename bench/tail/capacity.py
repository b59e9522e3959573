"""How much the gateway carries: callers at once, memory, and what it does with more than it can take."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import bench.load
from bench import chains
from bench.tail import loads, parts
from bench.tail.client import Plan
from bench.tail.loads import Load

CALLERS: Final = 64
DELAY_SECONDS: Final = 0.1
# As in the other cells; and so slow that more come than can be taken on.
FLOOD_DELAYS_SECONDS: Final = (DELAY_SECONDS, 5.0)
# Several clients, so that they are not what is measured.
FLOOD_CLIENTS: Final = 2
MEMORY_STEPS: Final = 10
MEMORY_CALLERS: Final = 256


def concurrency(rounds: int, seconds: float) -> dict[str, list[float]]:
    """Requests a second of 64 callers by round: of the gateway alone, of one process and of the chain of three, beside
    the empty chain of three."""
    found: dict[str, list[float]] = {"llm_gateway": [], "standalone": [], "three processes": [], "empty chain": []}
    with parts.fakes() as fakes, bench.load.sample_bodies(distinct=True) as bodies, ExitStack() as stack:
        fakes.tell(f"delay={DELAY_SECONDS}")
        gateway = stack.enter_context(parts.gateway(fakes.env()))
        over_http = {
            "standalone": stack.enter_context(chains.standalone(fakes.env())),
            "three processes": stack.enter_context(chains.three(fakes.env())),
            "empty chain": stack.enter_context(chains.bare(x_cache="miss", delay_seconds=DELAY_SECONDS)),
        }
        demand = bench.load.Demand(CALLERS)
        for chain in over_http.values():
            bench.load.run(chain, bodies, demand=demand, x_cache="miss", seconds=2)
        for number in range(rounds):
            count = round(seconds * CALLERS / DELAY_SECONDS)
            load = loads.run(Plan(gateway.target, count=count, key=f"callers {number}", callers=CALLERS))
            found["llm_gateway"].append(load.count("OK") / float(max(load.ends)))
            for name, chain in over_http.items():
                run = bench.load.run(chain, bodies, demand=demand, x_cache="miss", seconds=seconds)
                found[name].append(run.requests_per_second * (1 - run.unmeant))
    return found


@dataclass(frozen=True)
class Memory:
    """Of the gateway, after so many distinct replies."""

    replies: int
    resident_mb: float
    near_entries: int


def memory(replies: int, advance: Callable[[], None]) -> list[Memory]:
    """At the start, and after each tenth of the replies; all settings are the defaults, the model takes no time."""
    with parts.fakes() as fakes, parts.gateway(fakes.env()) as gateway:
        found = [_memory_of(gateway, 0)]
        step = replies // MEMORY_STEPS
        for number in range(MEMORY_STEPS):
            load = loads.run(Plan(gateway.target, count=step, key=f"memory {number}", callers=MEMORY_CALLERS))
            found.append(_memory_of(gateway, found[-1].replies + load.count("OK")))
            advance()
    return found


def _memory_of(gateway: parts.Gateway, replies: int) -> Memory:
    return Memory(replies, gateway.resident_mb(), gateway.statistics().cache.near_entries)


@dataclass(frozen=True)
class Flood:
    """What became of callers that all came at once."""

    callers: int
    answered: int
    shed: int  # RESOURCE_EXHAUSTED with RetryInfo
    other: dict[str, int]
    seconds: float  # until the last of them had its answer
    before_mb: float
    peak_mb: float
    after_mb: float


def flood(callers: int, delay_seconds: float) -> Flood:
    """No two ask the same; all settings are the defaults."""
    with parts.fakes() as fakes, parts.gateway(fakes.env()) as gateway:
        fakes.tell(f"delay={DELAY_SECONDS}")
        loads.run(Plan(gateway.target, count=500, key="before", callers=CALLERS))
        fakes.tell(f"delay={delay_seconds}")
        before_mb = gateway.resident_mb()
        plans = [
            Plan(gateway.target, count=callers // FLOOD_CLIENTS, key=f"flood {number}")
            for number in range(FLOOD_CLIENTS)
        ]
        load = loads.run_together(plans)
        return _flood_of(load, before_mb, gateway)


def _flood_of(load: Load, before_mb: float, gateway: parts.Gateway) -> Flood:
    shed = "RESOURCE_EXHAUSTED+RetryInfo"
    others = {answer.outcome for answer in load.answers} - {"OK", shed}
    return Flood(
        callers=len(load),
        answered=load.count("OK"),
        shed=load.count(shed),
        other={outcome: load.count(outcome) for outcome in sorted(others)},
        seconds=float(max(load.ends)),
        before_mb=before_mb,
        peak_mb=gateway.peak_mb(),
        after_mb=gateway.resident_mb(),
    )
