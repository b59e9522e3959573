"""Counts and percentiles."""

from __future__ import annotations

from standalone.load.tally import Answer, Tally, percentiles


def test_percentiles_are_times_that_there_were():
    assert percentiles([number / 1000 for number in range(100, 0, -1)]) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert percentiles([0.002]) == {"p50": 2, "p95": 2, "p99": 2, "max": 2}
    assert percentiles([]) is None


def test_what_failed_counts_apart_and_has_no_time():
    tally = Tally(sent=4)
    tally.add(Answer(persona="Lua", cache="hit", history="stored", first_text_at=1.5), begun_at=1.0, ended_at=2.0)
    tally.add(Answer(persona="Nana", cache="miss"), begun_at=1.0, ended_at=5.0)
    for _ in range(2):
        tally.add(Answer("OVERLOADED", persona="Lua"), begun_at=0.0, ended_at=100.0)
    assert tally.summary(4.0) == {
        "sent": 4,
        "ok": 2,
        "errors": {"OVERLOADED": 2},
        "seconds": 4.0,
        "requests_per_second": 0.5,
        "latency_ms": {"p50": 1000, "p95": 4000, "p99": 4000, "max": 4000},
        "first_text_ms": {"p50": 500, "p95": 500, "p99": 500, "max": 500},
        "cache": {"hit": 0.5, "miss": 0.5},
        "history": {"stored": 1.0},
        "personas": {"Lua": 0.5, "Nana": 0.5},
    }
