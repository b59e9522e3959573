"""Clients that leave before their answer is complete, and what that ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from litestar.types import Receive

_SETTLED: Final = "ion_settled"


def settle(scope: Any) -> None:
    """Note that this exchange needs no more answer: a cancellation that ends it is not to be passed on."""
    scope["state"][_SETTLED] = True


def is_settled(scope: Any) -> bool:
    return _SETTLED in scope.get("state", {})


@asynccontextmanager
async def cancelled_when_client_leaves(scope: Any, receive: Receive) -> AsyncIterator[None]:
    """Cancels the block when the client closes the connection. The request's body must have been read."""
    task = asyncio.current_task()
    watcher = asyncio.create_task(_wait_for_disconnect(receive))

    def cancel(done: asyncio.Task[None]) -> None:
        if task and not done.cancelled():
            settle(scope)
            task.cancel()

    watcher.add_done_callback(cancel)
    try:
        yield
    finally:
        watcher.remove_done_callback(cancel)
        watcher.cancel()


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def forget_cancellation() -> None:
    task = asyncio.current_task()
    if task:
        task.uncancel()
