"""Clients that leave; how the front ends then is in test_front.py."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway_http.departure import cancelled_when_client_leaves


async def test_the_watcher_ends_with_the_block():
    never = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await never.wait()
        return {}

    before = len(asyncio.all_tasks())
    async with cancelled_when_client_leaves({"state": {}}, receive):
        pass
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == before
