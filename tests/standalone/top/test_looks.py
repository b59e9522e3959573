"""Looks at a process, and what has grown between two."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from standalone.top import looks
from standalone.top.looks import KeyOnDemand, Look, Unseen, Watched, look_at_all, rates, read, take

TEXT = """\
# TYPE target info
target_info{service_name="router_service",service_instance_id="a"} 1
# TYPE calls_total counter
calls_total{way="in"} 4
# TYPE open gauge
open 7
# TYPE took histogram
took_bucket{le="1.0"} 1
took_bucket{le="+Inf"} 2
took_count 2
took_sum 3.5
"""
CALLS = ("calls_total", frozenset({("way", "in")}))
OPEN = ("open", frozenset[tuple[str, str]]())


def look(at: float, instance: str = "a", **values: float) -> Look:
    return Look(at, "s", instance, {(name, frozenset()): value for name, value in values.items()})


def growth(before: Look, after: Look) -> dict[str, float]:
    return {name: rate for (name, _), rate in rates(before, after).items()}


def answering(*answers: httpx.Response | Exception) -> httpx.AsyncClient:
    """A client for which these are what comes, one after another."""
    coming = iter(answers)

    def answer(_: httpx.Request) -> httpx.Response:
        found = next(coming)
        if isinstance(found, Exception):
            raise found
        return found

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


def test_what_a_process_tells():
    seen = read(TEXT, 5.0)
    assert (seen.taken_at, seen.service, seen.instance) == (5.0, "router_service", "a")
    assert (seen.values[CALLS], seen.values[OPEN]) == (4, 7)
    assert seen.values["took_bucket", frozenset({("le", "+Inf")})] == 2


@given(st.text())
def test_whatever_is_read_it_is_metrics_or_nothing_is_seen(text):
    with suppress(Unseen):
        assert read(text, 0.0).values


def test_what_counts_up_has_a_rate_and_a_gauge_has_none():
    before = look(10, calls_total=100, took_sum=1, took_count=2, took_bucket=2, open=5)
    after = look(14, calls_total=120, took_sum=3, took_count=2, took_bucket=2, open=9)
    assert growth(before, after) == {"calls_total": 5, "took_sum": 0.5, "took_count": 0, "took_bucket": 0}


def test_what_was_not_there_before_began_at_nothing():
    assert growth(look(0), look(2, calls_total=8)) == {"calls_total": 4}


def test_a_process_that_started_anew_has_counted_from_nothing():
    assert growth(look(0, calls_total=6), look(2, "b", calls_total=8)) == {"calls_total": 4}


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0.001, 1e5))
def test_no_rate_is_below_nothing_and_a_count_that_went_back_began_anew(before, after, seconds):
    told = growth(look(0, calls_total=before), look(seconds, calls_total=after))["calls_total"]
    assert told == pytest.approx((after if after < before else after - before) / seconds)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (httpx.Response(401), "ION_API_KEY"),
        (httpx.Response(403), '"admin"'),
        (httpx.Response(404), "are off"),
        (httpx.Response(599), "599"),
        (httpx.Response(200, text="<html>"), "something else"),
        (httpx.Response(200, text=""), "no metrics yet"),
        (httpx.ConnectError("secret"), "cannot be reached"),
        (httpx.ReadTimeout("secret"), "does not answer"),
    ],
)
async def test_what_cannot_be_seen_says_why(answer, told):
    async with answering(answer) as http:
        with pytest.raises(Unseen, match=told) as caught:
            await take(http, "http://ion/metrics")
    assert "secret" not in str(caught.value)


async def test_a_key_is_shown_to_those_alone_who_ask_for_one():
    shown: list[tuple[str, str | None]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        key = request.headers.get("Authorization")
        shown.append((request.url.host, key))
        wanted = request.url.host == "locked"
        return httpx.Response(401) if wanted and key != "Bearer k" else httpx.Response(200, text=TEXT)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=KeyOnDemand("Bearer k")) as http:
        for host in ("open", "locked", "open", "locked"):
            await take(http, f"http://{host}/metrics")
    assert shown == [("open", None), ("locked", None), ("locked", "Bearer k"), ("open", None), ("locked", "Bearer k")]


async def test_a_key_that_is_refused_is_not_shown_again_and_again():
    async with answering(httpx.Response(401), httpx.Response(401)) as http:
        http.auth = KeyOnDemand("Bearer k")
        with pytest.raises(Unseen, match="ION_API_KEY"):
            await take(http, "http://ion/metrics")


async def test_nobody_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(looks, "LOOK_SECONDS", 0.01)

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self):
            while True:
                yield b"#\n"
                await asyncio.sleep(0)

    async with answering(httpx.Response(200, stream=Endless())) as http:
        with pytest.raises(Unseen, match="does not answer"):
            await take(http, "http://ion/metrics")


async def test_who_was_away_has_no_rates_until_it_is_back():
    later = TEXT.replace('"in"} 4', '"in"} 9')
    back = later.replace('service_instance_id="a"', 'service_instance_id="b"')
    answers = [TEXT, later, None, back]
    watched = Watched("http://ion/metrics")
    told = []
    async with answering(
        *(httpx.ConnectError("") if answer is None else httpx.Response(200, text=answer) for answer in answers)
    ) as http:
        for _ in answers:
            await look_at_all(http, [watched])
            told.append((bool(watched.problem), watched.has_restarted, watched.rates().get(CALLS, 0.0) > 0))
    assert told == [(False, False, False), (False, False, True), (True, False, False), (False, True, True)]
