"""What this replica has counted, as the contract tells it."""

from __future__ import annotations

from typing import Final

from ion.llm.v1 import llm_pb2
from llm_gateway.breaker import BreakerState
from llm_gateway.cache import ResponseCache
from llm_gateway.completion import Completion
from llm_gateway.means import Means
from llm_gateway.translation import usage_of

_BREAKER: Final = {
    BreakerState.CLOSED: llm_pb2.BREAKER_STATE_CLOSED,
    BreakerState.OPEN: llm_pb2.BREAKER_STATE_OPEN,
    BreakerState.HALF_OPEN: llm_pb2.BREAKER_STATE_HALF_OPEN,
}


def response(completion: Completion) -> llm_pb2.GetStatisticsResponse:
    return llm_pb2.GetStatisticsResponse(
        cache=_cache(completion.cache),
        calls=_calls(completion),
        locations=_locations(completion.calls.means),
        hedges=_hedges(completion.calls.means),
        usage=_usage(completion.calls.means),
    )


def _cache(cache: ResponseCache) -> llm_pb2.CacheStatistics:
    counted = cache.statistics
    return llm_pb2.CacheStatistics(
        near_hits=counted.near_hits,
        shared_hits=counted.shared_hits,
        stale_hits=counted.stale_hits,
        coalesced=counted.coalesced,
        followed=counted.followed,
        taken_over=counted.taken_over,
        misses=counted.misses,
        stored=counted.stored,
        invalidated=counted.invalidated,
        foreign_values=counted.foreign_values,
        fenced_off=counted.fenced_off,
        near_entries=cache.near_entries,
        late_commands=cache.late_commands,
    )


def _calls(completion: Completion) -> llm_pb2.CallStatistics:
    counted, admission = completion.calls.means.statistics, completion.admission
    return llm_pb2.CallStatistics(
        calls=counted.calls,
        hedges=counted.hedges,
        hedges_won=counted.hedges_won,
        hedges_denied=counted.hedges_denied,
        retries=counted.retries,
        retries_denied=counted.retries_denied,
        shed=admission.shed,
        queued=admission.queued,
        running=admission.running,
    )


def _locations(means: Means) -> list[llm_pb2.LocationStatistics]:
    locations = means.locations
    return [
        llm_pb2.LocationStatistics(
            location=name,
            breaker=_BREAKER[locations.state(name)],
            latency_micros=round((locations.latency_seconds(name) or 0.0) * 1e6),
            running=locations.running(name),
        )
        for name in locations.names
    ]


def _hedges(means: Means) -> list[llm_pb2.HedgeStatistics]:
    delays = {model: means.latencies.delays(model) for model in means.latencies.models}
    return [
        llm_pb2.HedgeStatistics(
            model=model,
            first_token_micros=round((delay.first_token_seconds or 0.0) * 1e6),
            reply_micros=round((delay.reply_seconds or 0.0) * 1e6),
        )
        for model, delay in sorted(delays.items())
    ]


def _usage(means: Means) -> list[llm_pb2.UsageStatistics]:
    return [
        llm_pb2.UsageStatistics(
            persona=entry.persona,
            model=entry.model,
            replies=entry.replies,
            usage=usage_of(entry.usage),
            lost_usage=usage_of(entry.lost_usage),
            estimated_cost_usd=entry.cost_usd,
        )
        for entry in sorted(means.ledger.entries(), key=lambda entry: (entry.persona, entry.model))
    ]
