"""What is made of the metrics of several processes."""

from __future__ import annotations

from typing import Any

import pytest

from chassis import telemetry
from chassis.observability import metrics
from standalone.top.looks import Watched, read
from standalone.top.overview import Overview, overview
from tests.standalone.top.told import watched


def exchange(seconds: float = 0.02, route: str = "/chat", status: int = 200, error: str = "") -> None:
    told: dict[str, Any] = {telemetry.HTTP_METHOD: "POST", telemetry.HTTP_STATUS: status}
    told |= {telemetry.HTTP_ROUTE: route} if route else {}
    told |= {telemetry.ERROR_TYPE: error} if error else {}
    metrics.record(telemetry.HTTP_DURATION, seconds, told)


def nothing() -> None: ...


def seen(then: Any, first: Any = nothing, **manner: Any) -> Overview:
    return overview([watched("ion", first, then, **manner)])


def test_only_what_is_between_the_looks_counts():
    def first() -> None:
        for _ in range(100):
            exchange(seconds=9)

    def then() -> None:
        for _ in range(10):
            exchange(seconds=0.02)

    told = seen(then, first, seconds=4).requests
    assert told
    assert told.per_second == pytest.approx(2.5)
    assert told.times.p50 == pytest.approx(0.0175)
    assert told.times.p99 == pytest.approx(0.01 + 0.015 * 0.99)


def test_routes_have_their_own_figures_and_those_of_machines_are_left_out():
    def then() -> None:
        for _ in range(6):
            exchange()
        exchange(4.0, "/sessions")
        exchange(0.001, "", 404)
        for route in ("/livez", "/metrics", "/health", "/readyz", "/assets/{name}"):
            exchange(route=route)

    told = seen(then)
    assert [(traffic.route, traffic.per_second) for traffic in told.routes] == [
        ("/chat", 3),
        ("/sessions", 0.5),
        ("", 0.5),
    ]
    assert told.requests
    assert told.requests.per_second == 4
    assert told.routes[1].times.p50 == pytest.approx(4.0)


def test_errors_are_what_ion_is_to_blame_for():
    def then() -> None:
        exchange()
        exchange(status=404)
        exchange(error="CANCELLED")  # a client that left its stream
        exchange(status=0, error="CANCELLED")
        exchange(status=503, error="OVERLOADED")
        exchange(error="MODEL_INTERRUPTED")  # a stream that broke off
        exchange(status=500, error="INTERNAL")
        exchange(status=422)

    told = seen(then).requests
    assert told
    assert told.errors == pytest.approx(3 / 8)


def test_shares_of_caches_and_personas():
    def then() -> None:
        for tier, outcome, number in (
            ("near", "hit", 3),
            ("near", "stale", 1),
            ("shared", "hit", 1),
            ("none", "miss", 5),
        ):
            metrics.count(
                telemetry.CACHE_LOOKUPS, {telemetry.CACHE_TIER: tier, telemetry.CACHE_OUTCOME: outcome}, number
            )
        for persona, tone, number in (("Lua", "calm", 1), ("Lua", "sad", 2), ("Nana", "calm", 1)):
            metrics.count(telemetry.ROUTING_DECISIONS, {telemetry.PERSONA: persona, telemetry.TONE: tone}, number)

    told = seen(then)
    assert told.cache == {"near": 0.4, "flight": 0, "shared": 0.1}
    assert told.cache_lookups == 5
    assert told.personas == {"Lua": 0.75, "Nana": 0.25}


def test_what_the_model_did():
    def then() -> None:
        metrics.count(telemetry.MODEL_HEDGES, {telemetry.HEDGE_OUTCOME: "won"}, 2)
        metrics.count(telemetry.MODEL_HEDGES, {telemetry.HEDGE_OUTCOME: "lost"}, 0)
        metrics.count(telemetry.MODEL_RETRIES, {telemetry.RETRY_OUTCOME: "made"}, 4)
        metrics.count(telemetry.MODEL_TOKENS, {telemetry.TOKEN_TYPE: "input", telemetry.PERSONA: "Lua"}, 100)
        metrics.count(telemetry.MODEL_TOKENS, {telemetry.TOKEN_TYPE: "input", telemetry.PERSONA: "Nana"}, 100)
        metrics.count(telemetry.MODEL_COST, {telemetry.PERSONA: "Lua"}, 0.01)
        metrics.count(telemetry.CHAT_FALLBACKS, {telemetry.ERROR_TYPE: "MODEL_EMPTY"}, 2)
        metrics.count(telemetry.ACCESS_REFUSED, {telemetry.ERROR_TYPE: "RATE_LIMITED"}, 6)
        metrics.record(telemetry.HTTP_FIRST_EVENT, 0.02, {telemetry.HTTP_ROUTE: "/chat"})

    told = seen(then)
    assert (told.hedges, told.retries, told.tokens) == ({"won": 1}, {"made": 2}, {"input": 100})
    assert told.usd_per_hour == pytest.approx(18)
    assert (told.fallbacks, told.refused) == ({"MODEL_EMPTY": 1}, {"RATE_LIMITED": 3})
    assert told.first_text.p50 == pytest.approx(0.0175)


def observe_regions(**states: str) -> None:
    """Locations with the state of their breaker; the latency of the n-th is n seconds, and n calls are under way."""
    metrics.observe(
        telemetry.BREAKER,
        lambda: [
            (int(state == current), {telemetry.LOCATION: name, telemetry.BREAKER_STATE: state})
            for name, current in states.items()
            for state in ("closed", "open", "half_open")
        ],
    )
    numbered = [(place, {telemetry.LOCATION: name}) for place, name in enumerate(states, 1)]
    metrics.observe(telemetry.MODEL_LATENCY, lambda: numbered)
    metrics.observe(telemetry.MODEL_RUNNING, lambda: numbered)


def test_regions_of_several_replicas():
    def calls() -> None:
        for kind, number in (("first", 5), ("hedge", 1)):
            metrics.count(telemetry.MODEL_ATTEMPTS, {telemetry.ATTEMPT_KIND: kind, telemetry.LOCATION: "eu"}, number)

    one = watched("a", lambda: observe_regions(eu="closed", us="half_open"), calls)
    other = watched("b", lambda: observe_regions(us="closed", eu="open"), calls)
    told = overview([one, other])
    eu, us = told.regions
    assert (eu.name, eu.breaker, eu.attempts_per_second, eu.running, eu.latency_seconds) == ("eu", "open", 6, 3, 1.5)
    assert (us.name, us.breaker, us.attempts_per_second) == ("us", "half_open", 0)
    assert told.attempts == {"first": 5, "hedge": 1}


def test_redis_is_there_where_all_have_it():
    def connected(number: int) -> Any:
        return lambda: metrics.observe(telemetry.REDIS_CONNECTED, lambda: [(number, {telemetry.REDIS_USE: "cache"})])

    has, has_not = (watched(f"process{number}", connected(number), nothing) for number in (1, 0))
    assert overview([has]).redis == {"cache": True}
    assert overview([has, has_not]).redis == {"cache": False}
    assert seen(nothing, exchange).redis == {}


def test_processes():
    def first() -> None:
        metrics.observe(telemetry.PROCESS_MEMORY, lambda: [(123e6, {})])
        metrics.observe(telemetry.PROCESS_UPTIME, lambda: [(77, {})])
        metrics.observe(telemetry.HTTP_STREAMS, lambda: [(4, {})])

    def then() -> None:
        for mode in ("user", "system"):
            metrics.count(telemetry.PROCESS_CPU, {telemetry.CPU_MODE: mode}, 0.5)
        metrics.record(telemetry.LOOP_LAG, 0.002)

    (told,) = seen(then, first).processes
    assert (told.service, told.problem, told.cpu, told.memory_bytes) == ("ion", "", 0.5, 123e6)
    assert (told.uptime_seconds, told.streams) == (77, 4)
    assert told.loop_lag.p50 == pytest.approx(0.00175)


def test_who_is_away_or_new_is_shown_and_counts_for_nothing():
    def gauges() -> None:
        metrics.observe(telemetry.PROCESS_MEMORY, lambda: [(123e6, {})])
        metrics.observe(telemetry.ADMISSION_QUEUED, lambda: [(5, {})])

    away = watched("ion", gauges, exchange)
    away.problem = "cannot be reached"
    new = watched("new", nothing, exchange)
    new.before = None
    told = overview([away, new, Watched("http://never/metrics", "cannot be reached")])
    assert told.requests
    assert (told.requests.per_second, told.queued) == (0, None)
    assert [(process.service, process.problem) for process in told.processes] == [
        ("ion", "cannot be reached"),
        ("new", ""),
        ("", "cannot be reached"),
    ]
    assert told.processes[0].memory_bytes is None


def test_without_an_http_gateway_there_are_no_requests():
    router = Watched("http://router/metrics", latest=read("process_thread_count 3\n", 0.0))
    assert overview([router]).requests is None
    assert overview([watched("ion", nothing, nothing)]).requests
