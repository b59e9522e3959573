"""Processes, what they keep open, Redis, the database, and telemetry itself."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import units

from chassis import telemetry
from deploy.grafana import panels
from deploy.grafana.panels import PER_SECOND, graph, stacked
from deploy.grafana.queries import (
    FAILED,
    PROCESS,
    SHOWN_PROCESS,
    increase,
    of_each,
    quantiles,
    rates,
    total,
)


def resources() -> dashboard.Dashboard:
    about = "Processes, what they keep open, Redis, the database, and telemetry itself."
    made = panels.new("ion-resources", "ION resources", about)
    _add_processes(made)
    _add_calls(made)
    _add_stores(made)
    _add_telemetry(made)
    return made


def _add_processes(made: dashboard.Dashboard) -> None:
    lag, _ = quantiles(0.99, telemetry.LOOP_LAG, *PROCESS)
    panels.add_row(
        made,
        "Processes",
        panels.cpu(8),
        panels.memory(8),
        graph("Lag of the event loop, P99", units.Seconds, (lag, SHOWN_PROCESS), about="How late begins what is due."),
        graph("Threads", units.Short, of_each(telemetry.PROCESS_THREADS)),
        graph("Open files and sockets", units.Short, of_each(telemetry.PROCESS_FILES)),
        graph("Time since the start", units.Seconds, of_each(telemetry.PROCESS_UPTIME)),
    )


def _add_calls(made: dashboard.Dashboard) -> None:
    method, served, status = telemetry.RPC_METHOD, telemetry.RPC_SERVER_DURATION, telemetry.RPC_STATUS
    panels.add_row(
        made,
        "Calls",
        graph(
            "HTTP: under way",
            units.Short,
            (total(telemetry.HTTP_ACTIVE), "exchanges"),
            (total(telemetry.HTTP_STREAMS), "streams"),
        ),
        graph("gRPC: under way", units.Short, (total(telemetry.RPC_ACTIVE, "job"), "{{job}}")),
        stacked("Callers that were not let in", PER_SECOND, rates(telemetry.ACCESS_REFUSED, telemetry.ERROR_TYPE)),
        graph("gRPC as services see it, P95", units.Seconds, quantiles(0.95, served, method)),
        graph("gRPC as callers see it, P95", units.Seconds, quantiles(0.95, telemetry.RPC_CLIENT_DURATION, method)),
        stacked("gRPC calls that failed", PER_SECOND, rates(served, method, status, where=FAILED)),
    )


def _add_stores(made: dashboard.Dashboard) -> None:
    panels.add_row(
        made,
        "Redis and the database",
        graph(
            "There (1) or away (0)",
            units.NoUnit,
            of_each(telemetry.REDIS_CONNECTED, telemetry.REDIS_USE),
            of_each(telemetry.DB_AVAILABLE),
        ),
        graph(
            "Questions, P95",
            units.Seconds,
            quantiles(0.95, telemetry.DB_DURATION, telemetry.DB_SYSTEM, telemetry.DB_OPERATION),
        ),
        stacked(
            "Questions without an answer",
            PER_SECOND,
            rates(telemetry.DB_DURATION, telemetry.DB_SYSTEM, telemetry.ERROR_TYPE, where=FAILED),
        ),
        graph(
            "Connections to the database",
            units.Short,
            of_each(telemetry.DB_CONNECTIONS, telemetry.DB_CONNECTION_STATE),
            (of_each(telemetry.DB_CONNECTIONS_MAX)[0], f"most {SHOWN_PROCESS}"),
        ),
        graph(
            "Cache",
            units.Short,
            (total(telemetry.CACHE_ENTRIES, *PROCESS), f"replies in {SHOWN_PROCESS}"),
            (increase(telemetry.CACHE_STORED), "kept, in the time shown"),
            (increase(telemetry.CACHE_INVALIDATED), "found invalid, in the time shown"),
        ),
        stacked("Shared cache: not had, not kept", PER_SECOND, rates(telemetry.CACHE_ERRORS, telemetry.CACHE_ERROR)),
    )


def _add_telemetry(made: dashboard.Dashboard) -> None:
    panels.add_row(
        made,
        "Telemetry",
        graph("Prometheus reaches it (1) or not (0)", units.NoUnit, ("up", SHOWN_PROCESS)),
        graph(
            "The collector takes it (1) or not (0)",
            units.NoUnit,
            of_each(telemetry.TELEMETRY_EXPORTING, telemetry.SIGNAL),
        ),
        stacked("Thrown away", PER_SECOND, rates(telemetry.TELEMETRY_DROPPED, telemetry.SIGNAL)),
    )
