"""How it looks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console

from standalone.top.overview import Overview, Process, Region, Times, Traffic, overview
from standalone.top.view import view

TIMES = Times(0.0123, 1.5, 3.5)
PROCESS = Process("http://ion:8080/metrics", "ion", "", False, 3700.0, 0.42, 123e6, TIMES, 3.0)
SEEN = Overview(
    requests=Traffic("", 12.34, 0.025, TIMES),
    routes=[Traffic("/chat", 12.0, 0.0, TIMES), Traffic("", 0.34, 0.0, Times(None, None, None))],
    first_text=TIMES,
    fallbacks={"MODEL_EMPTY": 1.0},
    refused={"RATE_LIMITED": 2.0},
    cache={"near": 0.4, "flight": 0.0, "shared": 0.1},
    cache_lookups=11.0,
    redis={"cache": True, "limits": False},
    personas={"Lua": 0.75, "[red]Nana": 0.25},
    regions=[Region("us-central1", "open", 3.0, 2, 0.9), Region("local", "closed", 0.0, 0, None)],
    attempts={"first": 9.0},
    hedges={"won": 0.5},
    retries={},
    queued=7.0,
    tokens={"input": 300.0},
    usd_per_hour=1.234,
    processes=[
        PROCESS,
        replace(PROCESS, url="http://b/metrics", has_restarted=True, memory_bytes=500e6),
        Process("http://c/metrics", "", "cannot be reached", False, None, None, None, Times(None, None, None), None),
    ],
)


def shown(seen: Overview, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(view(seen))
    return captured.get()


def coloured(seen: Overview) -> set[tuple[str, str]]:
    """All texts that have a colour, with it."""
    segments = Console(width=120).render(view(seen))
    return {(text.strip(), style.color.name) for text, style, _ in segments if text.strip() and style and style.color}


def line_of(text: str, start: str) -> list[str]:
    """The words of the first line that begins so, borders left out."""
    found = next(line for line in text.splitlines() if line.strip("│ ").startswith(start))
    return found.replace("│", " ").split()


def test_figures_have_their_units():
    text = shown(SEEN)
    assert line_of(text, "all") == ["all", "12.3", "2.5%", "12.3", "ms", "1.50", "s", "3.50", "s"]
    assert line_of(text, "/chat")[:3] == ["/chat", "12.0", "0.0%"]
    assert line_of(text, "(none)")[1:] == ["0.3", "0.0%", "-", "-", "-"]
    assert line_of(text, "hits")[:3] == ["hits", "█" * 8, "50%"]
    assert line_of(text, "near")[:3] == ["near", "█" * 6, "40%"]
    assert line_of(text, "us-central1")[:6] == ["us-central1", "open", "3.0/s", "2", "900.0", "ms"]
    assert "won 0.5/s" in text
    assert "1.23 USD an hour" in text
    assert "apologies: MODEL_EMPTY 1.0/s" in text
    assert "not let in: RATE_LIMITED 2.0/s" in text
    ion = line_of(text, "ion")
    assert ion == ["ion", "http://ion:8080/metrics", "1:01:40", "42%", "123", "MB", "3.50", "s", "3"]


def test_processes_that_are_away_or_have_restarted_say_so():
    text = shown(SEEN)
    assert "http://b/metrics restarted" in " ".join(text.split())
    assert line_of(text, "?") == ["?", "http://c/metrics", "cannot", "be", "reached", *"-----"]


def test_what_is_wrong_is_red():
    told = coloured(SEEN)
    wrong = {"2.5%", "3.50 s", "open", "away", "500 MB", "restarted", "cannot be reached"}
    assert {text for text, colour in told if colour == "red"} >= wrong
    assert {("closed", "green"), ("there", "green")} <= told


def test_what_is_fine_is_not():
    told = Traffic("", 1.0, 0.01, Times(0.1, 0.2, 2.0))
    calm = replace(SEEN, requests=told, routes=[], first_text=told.times, fallbacks={}, refused={}, redis={})
    calm = replace(calm, regions=[SEEN.regions[1]], processes=[replace(PROCESS, memory_bytes=400e6)])
    assert {colour for _, colour in coloured(calm)} <= {"green", "cyan"}
    assert "apologies" not in shown(calm)


@pytest.mark.parametrize(
    ("seconds", "colour"), [(2.1, "yellow"), (3.1, "red"), (5.1, "red")], ids=["slow", "slower", "far too slow"]
)
def test_what_is_slow_is_told_as_the_alerts_do(seconds, colour):
    slow = replace(SEEN, routes=[Traffic("/chat", 1.0, 0.0, Times(seconds, None, None))])
    assert (f"{seconds:.2f} s", colour) in coloured(slow)


def test_names_are_no_markup():
    assert "[red]Nana" in shown(SEEN)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_every_width_will_do(width):
    assert max(map(len, shown(SEEN, width).splitlines())) <= width


def test_nothing_to_see_is_a_view_too():
    text = shown(overview([]))
    assert "None of these processes is an HTTP gateway." in text
