"""What the gateway counts anyway, as metrics: looked up when somebody collects, in another thread, at no cost to any
request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from chassis import telemetry
from chassis.observability import metrics
from chassis.observability.metrics import Observed
from llm_gateway.admission import Admission
from llm_gateway.breaker import BreakerState
from llm_gateway.cache import ResponseCache
from llm_gateway.completion import Completion
from llm_gateway.flights import CacheStatus, CacheTier
from llm_gateway.generation import Usage
from llm_gateway.labels import Labels
from llm_gateway.latencies import Latencies
from llm_gateway.locations import Locations
from llm_gateway.means import CallStatistics
from llm_gateway.spending import OTHER, Ledger


def observe(completion: Completion) -> None:
    """Until metrics stop; nothing where they are off."""
    means = completion.calls.means
    _observe_cache(completion.cache)
    _observe_calls(means.statistics)
    _observe_locations(means.locations)
    _observe_admission(completion.admission)
    _observe_usage(means.ledger, means.labels)
    metrics.observe(telemetry.MODEL_HEDGE_DELAY, partial(_hedge_delays, means.latencies, means.labels))


def _observe_cache(cache: ResponseCache) -> None:
    counted = cache.statistics
    metrics.observe(telemetry.CACHE_LOOKUPS, partial(_lookups, cache))
    metrics.observe(telemetry.CACHE_ERRORS, partial(_cache_errors, cache))
    metrics.observe(telemetry.CACHE_STORED, _one(lambda: counted.stored))
    metrics.observe(telemetry.CACHE_INVALIDATED, _one(lambda: counted.invalidated))
    metrics.observe(telemetry.CACHE_ENTRIES, _one(lambda: cache.near_entries))
    metrics.observe(telemetry.REDIS_CONNECTED, partial(_redis_connected, cache))


def _lookups(cache: ResponseCache) -> Iterator[Observed]:
    counted = cache.statistics
    found = {
        (CacheTier.NEAR, CacheStatus.HIT): counted.near_fresh,
        (CacheTier.NEAR, CacheStatus.STALE): counted.near_stale,
        (CacheTier.FLIGHT, CacheStatus.COALESCED): counted.coalesced,
        (CacheTier.SHARED, CacheStatus.HIT): counted.shared_fresh,
        (CacheTier.SHARED, CacheStatus.STALE): counted.shared_stale,
        (CacheTier.SHARED, CacheStatus.COALESCED): counted.followed,
        (CacheTier.NONE, CacheStatus.MISS): counted.misses,
    }
    for (tier, outcome), number in found.items():
        yield number, {telemetry.CACHE_TIER: tier.value, telemetry.CACHE_OUTCOME: outcome.value}


def _cache_errors(cache: ResponseCache) -> list[Observed]:
    counted = cache.statistics
    return _by(
        telemetry.CACHE_ERROR,
        late=cache.late_commands,
        refused=cache.refused_commands,
        foreign=counted.foreign_values,
        fenced_off=counted.fenced_off,
    )


def _redis_connected(cache: ResponseCache) -> list[Observed]:
    connected = cache.store_connected
    return [] if connected is None else _by(telemetry.REDIS_USE, cache=int(connected))


def _observe_calls(counted: CallStatistics) -> None:
    metrics.observe(telemetry.MODEL_ATTEMPTS, partial(_attempts, counted))
    metrics.observe(
        telemetry.MODEL_HEDGES,
        lambda: _by(
            telemetry.HEDGE_OUTCOME, won=counted.hedges_won, lost=counted.hedges_lost, denied=counted.hedges_denied
        ),
    )
    metrics.observe(
        telemetry.MODEL_RETRIES,
        lambda: _by(telemetry.RETRY_OUTCOME, made=counted.retries, denied=counted.retries_denied),
    )


def _attempts(counted: CallStatistics) -> Iterator[Observed]:
    for (kind, location), number in counted.attempts.copy().items():
        yield number, {telemetry.ATTEMPT_KIND: kind.value, telemetry.LOCATION: location}


def _observe_locations(locations: Locations) -> None:
    metrics.observe(telemetry.MODEL_RUNNING, partial(_by_location, locations, locations.running))
    metrics.observe(telemetry.MODEL_LATENCY, partial(_by_location, locations, locations.latency_seconds))
    metrics.observe(telemetry.BREAKER_OPENINGS, partial(_by_location, locations, locations.openings))
    metrics.observe(telemetry.BREAKER, partial(_breakers, locations))


def _by_location(locations: Locations, look: Callable[[str], float | None]) -> Iterator[Observed]:
    for name in locations.names:
        value = look(name)
        if value is not None:
            yield value, {telemetry.LOCATION: name}


def _breakers(locations: Locations) -> Iterator[Observed]:
    for name in locations.names:
        current = locations.state(name)
        for state in BreakerState:
            yield int(state is current), {telemetry.LOCATION: name, telemetry.BREAKER_STATE: state.value}


def _hedge_delays(latencies: Latencies, labels: Labels) -> Iterator[Observed]:
    """Of models that are told apart: of the others it would say nothing. Of several under one label, the longest."""
    longest: dict[tuple[str, str], float] = {}
    for model, delays in latencies.known().items():
        label = labels.model(model)
        if label == OTHER:
            continue
        for on, seconds in (("first_token", delays.first_token_seconds), ("reply", delays.reply_seconds)):
            if seconds is not None:
                longest[label, on] = max(seconds, longest.get((label, on), 0.0))
    for (label, on), seconds in longest.items():
        yield seconds, {telemetry.GEN_AI_REQUEST_MODEL: label, telemetry.HEDGE_ON: on}


def _observe_admission(admission: Admission) -> None:
    metrics.observe(telemetry.ADMISSION_RUNNING, _one(lambda: admission.running))
    metrics.observe(telemetry.ADMISSION_QUEUED, _one(lambda: admission.queued))
    metrics.observe(telemetry.ADMISSION_SHED, _one(lambda: admission.shed))


def _observe_usage(ledger: Ledger, labels: Labels) -> None:
    metrics.observe(telemetry.MODEL_REPLIES, partial(_replies, ledger, labels))
    metrics.observe(telemetry.MODEL_TOKENS, partial(_tokens, ledger, labels))
    metrics.observe(telemetry.MODEL_COST, partial(_cost, ledger, labels))


class _Sums:
    """Sums of what several names share a label for."""

    def __init__(self) -> None:
        self._sums: defaultdict[tuple[tuple[str, str], ...], float] = defaultdict(float)

    def add(self, value: float, attributes: dict[str, str]) -> None:
        self._sums[tuple(attributes.items())] += value

    def observed(self) -> list[Observed]:
        return [(value, dict(attributes)) for attributes, value in self._sums.items()]


def _replies(ledger: Ledger, labels: Labels) -> Iterable[Observed]:
    sums = _Sums()
    for entry in ledger.entries():
        sums.add(entry.replies, _used(labels, entry.persona, entry.model))
    return sums.observed()


def _tokens(ledger: Ledger, labels: Labels) -> Iterable[Observed]:
    sums = _Sums()
    for entry in ledger.entries():
        used = _used(labels, entry.persona, entry.model)
        for kind, tokens in _kinds(entry.usage, entry.lost_usage):
            sums.add(tokens, used | {telemetry.TOKEN_TYPE: kind})
    return sums.observed()


def _cost(ledger: Ledger, labels: Labels) -> Iterable[Observed]:
    sums = _Sums()
    for entry in ledger.entries():
        if entry.cost_usd is not None:
            sums.add(entry.cost_usd, _used(labels, entry.persona, entry.model))
    return sums.observed()


def _used(labels: Labels, persona: str, model: str) -> dict[str, str]:
    return {telemetry.PERSONA: labels.persona(persona), telemetry.GEN_AI_REQUEST_MODEL: labels.model(model)}


def _kinds(usage: Usage, lost: Usage) -> Iterator[tuple[str, int]]:
    yield "input", usage.input_tokens
    yield "cached_input", usage.cached_input_tokens
    yield "output", usage.output_tokens
    yield "thinking", usage.thinking_tokens
    yield "lost_input", lost.input_tokens
    yield "lost_output", lost.output_tokens + lost.thinking_tokens


def _one(look: Callable[[], float]) -> Callable[[], list[Observed]]:
    return lambda: [(look(), {})]


def _by(attribute: str, **numbers: float) -> list[Observed]:
    return [(number, {attribute: value}) for value, number in numbers.items()]
