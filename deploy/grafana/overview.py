"""How users fare, who answers, and what it costs."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import units

from chassis import telemetry
from deploy.grafana import panels
from deploy.grafana.panels import CHAT_LIMITS, PER_SECOND, bars, graph, limits, marked, number, pieces, stacked
from deploy.grafana.queries import (
    CHATS,
    FAILED,
    apologies_share,
    failed_share,
    increases,
    percentiles,
    quantile,
    rate,
    rates,
    requests,
    share,
    shown,
)

_FOUND = 'ion_cache_outcome!="miss"'


def overview() -> dashboard.Dashboard:
    made = panels.new("ion-overview", "ION overview", "How users fare, who answers, and what it costs.")
    _add_now(made)
    _add_users(made)
    _add_personas(made)
    _add_cost(made)
    panels.add_row(made, "Machine", panels.cpu(12), panels.memory(12))
    return made


def _add_now(made: dashboard.Dashboard) -> None:
    p95 = quantile(0.95, telemetry.HTTP_DURATION, where=CHATS)
    found = f"{rate(telemetry.CACHE_LOOKUPS, where=_FOUND)} / {rate(telemetry.CACHE_LOOKUPS)}"
    firing = 'count(ALERTS{alertstate="firing"}) or vector(0)'
    panels.add_row(
        made,
        "Now",
        number("Chats", PER_SECOND, rate(telemetry.HTTP_DURATION, where=CHATS)),
        number("P95 of chats", units.Seconds, p95, CHAT_LIMITS),
        number("Failed requests", units.PercentUnit, failed_share(), limits((0.01, "red"))),
        number("From the cache", units.PercentUnit, found),
        number("Dollars a day at this rate", units.Dollars, f"86400 * {rate(telemetry.MODEL_COST)}"),
        number("Alerts", units.NoUnit, firing, limits((1, "red"))),
    )


def _add_users(made: dashboard.Dashboard) -> None:
    times = graph(
        "Response time of chats",
        units.Seconds,
        *percentiles(telemetry.HTTP_DURATION, CHATS),
        (quantile(0.95, telemetry.HTTP_FIRST_EVENT), "P95 to the first text of a stream"),
        about="Whole replies; a stream until its last event. Lines: where alerts begin.",
    )
    errors = graph(
        "Errors",
        units.PercentUnit,
        (failed_share(), "failed"),
        (apologies_share(), "apologies, of chats"),
        about="Failed: a status of 500 or more, or a stream that broke off; not that the caller left.",
    )
    found_by_tier = rate(telemetry.CACHE_LOOKUPS, telemetry.CACHE_TIER, telemetry.CACHE_OUTCOME, where=_FOUND)
    cache = stacked(
        "Replies from the cache, by tier",
        units.PercentUnit,
        (share(found_by_tier, rate(telemetry.CACHE_LOOKUPS)), shown(telemetry.CACHE_TIER, telemetry.CACHE_OUTCOME)),
        about="Of all requests to the LLM gateway.",
    )
    panels.add_row(
        made,
        "Users",
        marked(times, CHAT_LIMITS),
        stacked("Throughput", PER_SECOND, (requests(telemetry.HTTP_ROUTE), shown(telemetry.HTTP_ROUTE))),
        errors,
        stacked(
            "Failures by reason",
            PER_SECOND,
            rates(telemetry.HTTP_DURATION, telemetry.ERROR_TYPE, where=FAILED),
            about="CANCELLED: callers that left. What was refused for a fault of the caller is not among them.",
        ),
        stacked("Apologies by reason", PER_SECOND, rates(telemetry.CHAT_FALLBACKS, telemetry.ERROR_TYPE)),
        cache,
    )


def _add_personas(made: dashboard.Dashboard) -> None:
    decisions = telemetry.ROUTING_DECISIONS
    panels.add_row(
        made,
        "Personas",
        pieces("Personas", increases(decisions, telemetry.PERSONA), width=6),
        stacked("Personas over time", PER_SECOND, rates(decisions, telemetry.PERSONA), width=6),
        bars("Tones", increases(decisions, telemetry.TONE), width=6),
        bars("Intents", increases(decisions, telemetry.INTENT), width=6),
    )


def _add_cost(made: dashboard.Dashboard) -> None:
    by_persona = (f"3600 * {rate(telemetry.MODEL_COST, telemetry.PERSONA)}", shown(telemetry.PERSONA))
    panels.add_row(
        made,
        "Tokens and cost",
        graph(
            "Tokens a second",
            units.Short,
            rates(telemetry.MODEL_TOKENS, telemetry.TOKEN_TYPE),
            about="cached_input is a part of input; lost: of calls whose reply was not used.",
        ),
        stacked(
            "Dollars an hour, by persona",
            units.Dollars,
            by_persona,
            about="By list prices; a model without a price costs nothing here.",
        ),
        bars(
            "Tokens by persona and model",
            increases(telemetry.MODEL_TOKENS, telemetry.PERSONA, telemetry.GEN_AI_REQUEST_MODEL),
        ),
    )
