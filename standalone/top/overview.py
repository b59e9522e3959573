"""What is to be seen between two looks, of all processes together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from chassis import telemetry
from gateway_http.exchange import is_background
from standalone.top.looks import Watched
from standalone.top.tally import Labels, Tally, Wanted, label_of, quantile, shares

_ROUTE: Final = label_of(telemetry.HTTP_ROUTE)
_ERROR: Final = label_of(telemetry.ERROR_TYPE)
_LOCATION: Final = label_of(telemetry.LOCATION)
_TIERS: Final = ("near", "flight", "shared")
_STATES: Final = ("open", "half_open", "closed")  # the one to worry about first: replicas may differ
_SECONDS_AN_HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds; None where there was nothing to time."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one route; "" for what none answered. `errors` are what ION is to blame for, as a share of the requests."""

    route: str
    per_second: float
    errors: float
    times: Times


@dataclass(frozen=True, slots=True)
class Region:
    """`latency_seconds`: the moving average; None before the first reply."""

    name: str
    breaker: str
    attempts_per_second: float
    running: int
    latency_seconds: float | None


@dataclass(frozen=True, slots=True)
class Process:
    """`cpu`: 1.0 is one core. What a process does not tell is None; all is where `problem` says why."""

    url: str
    service: str
    problem: str
    has_restarted: bool
    uptime_seconds: float | None
    cpu: float | None
    memory_bytes: float | None
    loop_lag: Times
    streams: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """All rates are a second's. Cache: the share of lookups that each tier answered; personas: of decisions. A list of
    what no process tells of is empty, and a number is None. `fallbacks` and `refused` are by why."""

    requests: Traffic | None
    routes: Sequence[Traffic]
    first_text: Times
    fallbacks: dict[str, float]
    refused: dict[str, float]
    cache: dict[str, float]
    cache_lookups: float | None
    redis: dict[str, bool]
    personas: dict[str, float]
    regions: Sequence[Region]
    attempts: dict[str, float]
    hedges: dict[str, float]
    retries: dict[str, float]
    queued: float | None
    tokens: dict[str, float]
    usd_per_hour: float | None
    processes: Sequence[Process]


def overview(watched: Sequence[Watched]) -> Overview:
    grown = Tally(pair for each in watched for pair in each.rates().items())
    seen = [each.latest for each in watched if each.latest and not each.problem]
    now = Tally(pair for look in seen for pair in look.values.items())
    lookups = grown.by(telemetry.CACHE_LOOKUPS, telemetry.CACHE_TIER)
    return Overview(
        requests=_all_traffic(grown) if now.has(telemetry.HTTP_STREAMS) else None,
        routes=_routes(grown),
        first_text=_times(grown, telemetry.HTTP_FIRST_EVENT),
        fallbacks=_some(grown.by(telemetry.CHAT_FALLBACKS, telemetry.ERROR_TYPE)),
        refused=_some(grown.by(telemetry.ACCESS_REFUSED, telemetry.ERROR_TYPE)),
        cache=_tiers(lookups),
        cache_lookups=sum(lookups.values()) if lookups else None,
        redis=_redis(now),
        personas=shares(grown.by(telemetry.ROUTING_DECISIONS, telemetry.PERSONA)),
        regions=_regions(now, grown),
        attempts=_some(grown.by(telemetry.MODEL_ATTEMPTS, telemetry.ATTEMPT_KIND)),
        hedges=_some(grown.by(telemetry.MODEL_HEDGES, telemetry.HEDGE_OUTCOME)),
        retries=_some(grown.by(telemetry.MODEL_RETRIES, telemetry.RETRY_OUTCOME)),
        queued=_told(now, telemetry.ADMISSION_QUEUED),
        tokens=_some(grown.by(telemetry.MODEL_TOKENS, telemetry.TOKEN_TYPE)),
        usd_per_hour=_told(grown, telemetry.MODEL_COST, _SECONDS_AN_HOUR),
        processes=[_process(each) for each in watched],
    )


def _all_traffic(grown: Tally) -> Traffic:
    return _traffic(grown, "", lambda labels: not is_background(labels.get(_ROUTE, "")))


def _routes(grown: Tally) -> list[Traffic]:
    """Those that were asked, the busiest first."""
    asked = grown.by(telemetry.HTTP_DURATION, telemetry.HTTP_ROUTE, suffix="_count")
    told = [_traffic(grown, name, _of(name)) for name, rate in asked.items() if rate and not is_background(name)]
    return sorted(told, key=lambda traffic: -traffic.per_second)


def _of(route: str) -> Wanted:
    return lambda labels: labels.get(_ROUTE, "") == route


def _traffic(grown: Tally, route: str, wanted: Wanted) -> Traffic:
    rate = grown.sum(telemetry.HTTP_DURATION, wanted, suffix="_count")
    errors = grown.sum(telemetry.HTTP_DURATION, lambda labels: wanted(labels) and _is_fault(labels), suffix="_count")
    return Traffic(route, rate, errors / rate if rate else 0.0, _times(grown, telemetry.HTTP_DURATION, wanted))


def _is_fault(labels: Labels) -> bool:
    return labels.get(_ERROR, "") not in ("", "CANCELLED")  # as in ion.rules.yml


def _times(grown: Tally, metric: telemetry.Metric, wanted: Wanted = lambda _: True) -> Times:
    buckets = grown.buckets(metric, wanted)
    return Times(quantile(0.5, buckets), quantile(0.95, buckets), quantile(0.99, buckets))


def _tiers(lookups: dict[str, float]) -> dict[str, float]:
    told = shares(lookups)
    return {tier: told.get(tier, 0.0) for tier in _TIERS} if told else {}


def _redis(now: Tally) -> dict[str, bool]:
    """By what it is used for, where some is configured: whether all processes have it."""
    connected = now.by(telemetry.REDIS_CONNECTED, telemetry.REDIS_USE)
    asked = now.counts(telemetry.REDIS_CONNECTED, telemetry.REDIS_USE)
    return {use: connected[use] == asked[use] for use in connected}


def _regions(now: Tally, grown: Tally) -> list[Region]:
    attempts = grown.by(telemetry.MODEL_ATTEMPTS, telemetry.LOCATION)
    running = now.by(telemetry.MODEL_RUNNING, telemetry.LOCATION)
    latency = now.by(telemetry.MODEL_LATENCY, telemetry.LOCATION)
    told_by = now.counts(telemetry.MODEL_LATENCY, telemetry.LOCATION)
    return [
        Region(
            name,
            _breaker(now, name),
            attempts.get(name, 0.0),
            int(running.get(name, 0)),
            latency[name] / told_by[name] if name in latency else None,
        )
        for name in sorted(now.by(telemetry.BREAKER, telemetry.LOCATION))
    ]


def _breaker(now: Tally, location: str) -> str:
    states = now.by(telemetry.BREAKER, telemetry.BREAKER_STATE, lambda labels: labels.get(_LOCATION) == location)
    return next((state for state in _STATES if states.get(state)), "")


def _process(watched: Watched) -> Process:
    look = None if watched.problem else watched.latest
    now, grown = Tally(look.values.items() if look else ()), Tally(watched.rates().items())
    return Process(
        url=watched.url,
        service=watched.latest.service if watched.latest else "",
        problem=watched.problem,
        has_restarted=watched.has_restarted,
        uptime_seconds=_told(now, telemetry.PROCESS_UPTIME),
        cpu=_told(grown, telemetry.PROCESS_CPU),
        memory_bytes=_told(now, telemetry.PROCESS_MEMORY),
        loop_lag=_times(grown, telemetry.LOOP_LAG),
        streams=_told(now, telemetry.HTTP_STREAMS),
    )


def _told(tally: Tally, metric: telemetry.Metric, factor: float = 1) -> float | None:
    """None where nobody tells."""
    return tally.sum(metric) * factor if tally.has(metric) else None


def _some(numbers: dict[str, float]) -> dict[str, float]:
    """Without what did not happen."""
    return {name: number for name, number in sorted(numbers.items()) if number}
