"""How the model's locations do, and what ION does about it."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import units

from chassis import telemetry
from deploy.grafana import panels
from deploy.grafana.panels import PER_SECOND, bars, graph, stacked
from deploy.grafana.queries import (
    FAILED,
    increases,
    of,
    of_each,
    percentiles,
    quantiles,
    rate,
    rates,
    shown,
    total,
)

_WHERE = telemetry.LOCATION


def model_calls() -> dashboard.Dashboard:
    about = "How the model's locations do, and what ION does about it."
    made = panels.new("ion-model-calls", "ION model calls", about)
    _add_locations(made)
    _add_times(made)
    _add_calls(made)
    _add_queue(made)
    return made


def _add_locations(made: dashboard.Dashboard) -> None:
    not_closed = of(telemetry.BREAKER, 'ion_breaker_state!="closed"')
    breakers = (
        f"max by (ion_location, ion_breaker_state) ({not_closed})",
        shown(_WHERE, telemetry.BREAKER_STATE),
    )
    panels.add_row(
        made,
        "Locations",
        stacked("Calls by location", PER_SECOND, rates(telemetry.MODEL_ATTEMPTS, _WHERE)),
        graph(
            "P95 by location",
            units.Seconds,
            quantiles(0.95, telemetry.GEN_AI_DURATION, _WHERE),
            about="Single calls, until the last token.",
        ),
        stacked(
            "Failed calls",
            PER_SECOND,
            rates(telemetry.GEN_AI_DURATION, _WHERE, telemetry.ERROR_TYPE, where=FAILED),
            about="CANCELLED: hedges that lost, and calls that nobody waited for any longer.",
        ),
        graph("Breakers that are open or half open (1)", units.NoUnit, breakers),
        bars("Openings of breakers", increases(telemetry.BREAKER_OPENINGS, _WHERE)),
        graph(
            "Time of whole replies, as the choice of location sees it",
            units.Seconds,
            of_each(telemetry.MODEL_LATENCY, _WHERE),
        ),
    )


def _add_times(made: dashboard.Dashboard) -> None:
    late = of_each(telemetry.MODEL_HEDGE_DELAY, telemetry.GEN_AI_REQUEST_MODEL, telemetry.HEDGE_ON)
    panels.add_row(
        made,
        "Times",
        graph("Calls", units.Seconds, *percentiles(telemetry.GEN_AI_DURATION)),
        graph("To the first token of streams", units.Seconds, *percentiles(telemetry.GEN_AI_FIRST_CHUNK)),
        graph("After which a call is late", units.Seconds, late),
    )


def _add_calls(made: dashboard.Dashboard) -> None:
    calls_of_a_reply = f"{rate(telemetry.MODEL_ATTEMPTS)} / {rate(telemetry.MODEL_REPLIES)}"
    panels.add_row(
        made,
        "Calls",
        stacked("Calls by kind", PER_SECOND, rates(telemetry.MODEL_ATTEMPTS, telemetry.ATTEMPT_KIND)),
        stacked("Hedges", PER_SECOND, rates(telemetry.MODEL_HEDGES, telemetry.HEDGE_OUTCOME)),
        stacked("Retries", PER_SECOND, rates(telemetry.MODEL_RETRIES, telemetry.RETRY_OUTCOME)),
        graph("Calls for each reply", units.NoUnit, (calls_of_a_reply, "calls")),
        stacked("Replies by model", PER_SECOND, rates(telemetry.MODEL_REPLIES, telemetry.GEN_AI_REQUEST_MODEL)),
        graph(
            "Tokens of a call, P95", units.Short, quantiles(0.95, telemetry.GEN_AI_TOKENS, telemetry.GEN_AI_TOKEN_TYPE)
        ),
    )


def _add_queue(made: dashboard.Dashboard) -> None:
    panels.add_row(
        made,
        "Queue",
        graph(
            "Under way",
            units.Short,
            (total(telemetry.ADMISSION_RUNNING), "requests"),
            (total(telemetry.ADMISSION_QUEUED), "requests that wait"),
            (total(telemetry.MODEL_RUNNING, _WHERE), f"calls to {shown(_WHERE)}"),
        ),
        graph("Time in the queue", units.Seconds, *percentiles(telemetry.ADMISSION_WAIT)),
        graph("Refused, since too many waited", PER_SECOND, (rate(telemetry.ADMISSION_SHED), "refused")),
    )
