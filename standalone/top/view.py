"""How it looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from standalone.top.overview import Overview, Process, Region, Times, Traffic

_NOTHING: Final = "-"
_BAR_CELLS: Final = 16
_MOST_ROUTES: Final = 8
_MOST_PERSONAS: Final = 8
# As the alerts have it.
_SLOW_SECONDS: Final = ((5.0, "bold red"), (3.0, "red"), (2.0, "yellow"))
_MANY_ERRORS: Final = 0.01
_MUCH_MEMORY: Final = 400e6
_BREAKER_STYLES: Final = {"open": "red", "half_open": "yellow", "closed": "green"}


def view(seen: Overview) -> RenderableType:
    halves = Table.grid(expand=True, padding=(0, 1, 0, 0))
    halves.add_column(ratio=1)
    halves.add_column(ratio=1)
    _add_pair(halves, ("Cache", _cache(seen)), ("Personas", _personas(seen)))
    _add_pair(halves, ("Regions", _regions(seen)), ("Model", _model(seen)))
    return Group(_panel("Requests", _requests(seen)), halves, _panel("Processes", _processes(seen)))


def _add_pair(halves: Table, *pair: tuple[str, Table]) -> None:
    """Two panels of one height."""
    lines = max(table.row_count + table.show_header for _, table in pair)
    halves.add_row(*(_panel(title, table, height=lines + 2) for title, table in pair))


def _panel(title: str, inside: RenderableType, *, height: int | None = None) -> Panel:
    return Panel(inside, title=f"[bold]{title}[/bold]", title_align="left", border_style="dim", height=height)


def _table(*columns: str, right: int) -> Table:
    """The last `right` columns are of numbers."""
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim")
    for place, column in enumerate(columns):
        is_number = place >= len(columns) - right
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True, overflow="ellipsis")
    return table


def _requests(seen: Overview) -> RenderableType:
    if seen.requests is None:
        return Text("None of these processes is an HTTP gateway.", style="dim")
    table = _table("route", "a second", "errors", "P50", "P95", "P99", right=5)
    _add_traffic(table, "all", seen.requests, style="bold")
    for traffic in seen.routes[:_MOST_ROUTES]:
        _add_traffic(table, traffic.route or "(none)", traffic)
    table.add_row("first text of streams", "", "", *_times(seen.first_text), style="dim")
    return Group(table, *_troubles(seen))


def _add_traffic(table: Table, name: str, traffic: Traffic, *, style: str = "") -> None:
    errors = Text(f"{traffic.errors:.1%}", style="red" if traffic.errors > _MANY_ERRORS else "")
    table.add_row(name, f"{traffic.per_second:.1f}", errors, *_times(traffic.times), style=style)


def _times(times: Times) -> Iterable[Text]:
    for seconds in (times.p50, times.p95, times.p99):
        style = next((style for least, style in _SLOW_SECONDS if seconds is not None and seconds > least), "")
        yield Text(_duration(seconds), style=style)


def _troubles(seen: Overview) -> Iterable[Text]:
    for what, reasons in (("apologies", seen.fallbacks), ("not let in", seen.refused)):
        if reasons:
            yield Text(f"{what}: {_rates(reasons)}", style="red")


def _cache(seen: Overview) -> Table:
    table = _shares({"hits": sum(seen.cache.values())} | seen.cache if seen.cache else {})
    table.add_row("lookups", "", _NOTHING if seen.cache_lookups is None else f"{seen.cache_lookups:.1f}/s")
    for use, connected in seen.redis.items():
        table.add_row(f"Redis: {use}", "", Text("there", "green") if connected else Text("away", "red"))
    return table


def _personas(seen: Overview) -> Table:
    return _shares(dict(list(seen.personas.items())[:_MOST_PERSONAS]))


def _shares(shares: Mapping[str, float]) -> Table:
    table = Table(box=None, expand=True, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(justify="right", no_wrap=True)
    for name, share in shares.items():
        table.add_row(Text(name), "█" * round(share * _BAR_CELLS), f"{share:.0%}")
    return table


def _regions(seen: Overview) -> Table:
    table = _table("region", "breaker", "calls", "running", "latency", right=3)
    for region in seen.regions:
        table.add_row(*_region(region))
    return table


def _region(region: Region) -> Iterable[str | Text]:
    yield Text(region.name)
    yield Text(region.breaker.replace("_", " "), style=_BREAKER_STYLES.get(region.breaker, ""))
    yield f"{region.attempts_per_second:.1f}/s"
    yield str(region.running)
    yield _duration(region.latency_seconds)


def _model(seen: Overview) -> Table:
    table = Table(box=None, expand=True, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right")
    table.add_row("calls", _rates(seen.attempts))
    table.add_row("hedges", _rates(seen.hedges))
    table.add_row("retries", _rates(seen.retries))
    table.add_row("queued", _NOTHING if seen.queued is None else f"{seen.queued:.0f}")
    table.add_row("tokens", _rates(seen.tokens))
    table.add_row("cost", _NOTHING if seen.usd_per_hour is None else f"{seen.usd_per_hour:.2f} USD an hour")
    return table


def _processes(seen: Overview) -> Table:
    table = _table("service", "address", "", "up", "CPU", "memory", "loop lag P99", "streams", right=5)
    for process in seen.processes:
        table.add_row(*_process(process))
    return table


def _process(process: Process) -> Iterable[str | Text]:
    yield Text(process.service or "?")
    yield Text(process.url)
    yield Text(process.problem or ("restarted" if process.has_restarted else ""), style="red")
    up, memory = process.uptime_seconds, process.memory_bytes
    yield _NOTHING if up is None else str(timedelta(seconds=round(up)))
    yield _NOTHING if process.cpu is None else f"{process.cpu:.0%}"
    much = memory is not None and memory > _MUCH_MEMORY
    yield Text(_NOTHING if memory is None else f"{memory / 1e6:.0f} MB", style="red" if much else "")
    yield _duration(process.loop_lag.p99)
    yield _NOTHING if process.streams is None else f"{process.streams:.0f}"


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {rate:.1f}/s" for name, rate in rates.items()) or _NOTHING


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return _NOTHING
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"
