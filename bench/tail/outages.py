"""One of three locations goes bad, the preferred one, while requests come in as before."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from bench.tail import loads, parts
from bench.tail.client import Plan
from bench.tail.latency import LEARNING, law_of
from bench.tail.loads import Load
from bench.tail.parts import LOCATIONS, Fakes, Gateway

RATE: Final = 100
HEALTHY_SECONDS: Final = 5.0
# What the preferred location is told, by name; the healthy run is what the others are compared with.
OUTAGES: Final = {"healthy": "healthy", "down": "down", "hanging": "hang", "50 % errors": "errors=0.5"}


def measure(rounds: int, seconds: float, advance: Callable[[], None]) -> dict[str, list[Load]]:
    """The answers to what was due from the outage on, by outage and round. All settings are the defaults."""
    found: dict[str, list[Load]] = {name: [] for name in OUTAGES}
    with parts.fakes() as fakes, parts.gateway(fakes.env()) as gateway:
        fakes.tell(law_of("learning"))
        loads.run(Plan(gateway.target, count=LEARNING, key="learning", rate=RATE))
        for number in range(rounds):
            for name, command in OUTAGES.items():
                found[name].append(_run(gateway, fakes, f"{name} {number}", command, number, seconds))
                advance()
    return found


def _run(gateway: Gateway, fakes: Fakes, key: str, command: str, number: int, seconds: float) -> Load:
    fakes.tell(law_of(str(number)))

    def break_down() -> None:
        time.sleep(HEALTHY_SECONDS)
        fakes.tell(command, LOCATIONS[0])

    count = round(RATE * (HEALTHY_SECONDS + seconds))
    load = loads.run(Plan(gateway.target, count=count, key=key, rate=RATE, seed=number), meanwhile=break_down)
    fakes.tell("healthy", LOCATIONS[0])
    return load.after(HEALTHY_SECONDS)
