"""A look every few seconds, and what is shown of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import httpx
from rich.live import Live

from standalone import show
from standalone.top.looks import LOOK_SECONDS, KeyOnDemand, Watched, look_at_all
from standalone.top.overview import Overview, overview
from standalone.top.view import view


async def once(urls: Sequence[str], interval_seconds: float, authorization: str, *, as_json: bool) -> bool:
    """Two looks, and what came of them; False where an address was not seen twice."""
    watched = [Watched(url) for url in urls]
    async with _client(authorization) as http:
        await look_at_all(http, watched)
        await asyncio.sleep(interval_seconds)
        await look_at_all(http, watched)
    for each in watched:
        if not each.problem and not each.before:
            each.problem = "was seen once"
    _print(overview(watched), as_json=as_json)
    return not any(each.problem for each in watched)


async def follow(urls: Sequence[str], interval_seconds: float, authorization: str, *, as_json: bool) -> None:
    """Until it is interrupted: on a terminal in place, else one after another."""
    async with _client(authorization) as http:
        seen = _seen(http, [Watched(url) for url in urls], interval_seconds)
        if as_json or not show.out.is_terminal:
            async for told in seen:
                _print(told, as_json=as_json)
        else:
            with Live(console=show.out, auto_refresh=False, screen=True) as live:
                async for told in seen:
                    live.update(view(told), refresh=True)


async def _seen(http: httpx.AsyncClient, watched: list[Watched], interval_seconds: float) -> AsyncIterator[Overview]:
    while True:
        await look_at_all(http, watched)
        yield overview(watched)
        await asyncio.sleep(interval_seconds)


def _print(told: Overview, *, as_json: bool) -> None:
    if as_json:
        show.as_json_line(told)
    else:
        show.out.print(view(told))


def _client(authorization: str) -> httpx.AsyncClient:
    """Past proxies of the environment: processes are looked at where they are."""
    auth = KeyOnDemand(authorization) if authorization else None
    return httpx.AsyncClient(auth=auth, timeout=LOOK_SECONDS, trust_env=False)
