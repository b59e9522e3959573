"""Deletes sessions that nobody has used for long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import IonError
from router_service.conversations.conversation import Conversations

SECONDS_A_DAY: Final = 86_400.0
SWEEP_SECONDS: Final = 3600.0
RETRY_SECONDS: Final = 60.0
BATCH_SECONDS: Final = 30.0
PAUSE_SECONDS: Final = 0.1  # between batches: requests go first

_log = logging.getLogger(__name__)


@asynccontextmanager
async def sweeping(conversations: Conversations, *, retention_days: float) -> AsyncIterator[None]:
    """Delete what is older, at once and hourly, until the block ends. 0 days keep everything."""
    if not retention_days:
        yield
        return
    task = asyncio.get_running_loop().create_task(_keep_sweeping(conversations, retention_days * SECONDS_A_DAY))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _keep_sweeping(conversations: Conversations, seconds: float) -> None:
    while True:
        done = await sweep(conversations, seconds)
        await asyncio.sleep(SWEEP_SECONDS if done else RETRY_SECONDS)


async def sweep(conversations: Conversations, seconds: float) -> bool:
    """Delete all sessions last used longer ago, a batch at a time. False where the database did not answer."""
    deleted = 0
    try:
        while batch := await conversations.delete_older_than(seconds, Deadline.after(BATCH_SECONDS)):
            deleted += batch
            await asyncio.sleep(PAUSE_SECONDS)
    except IonError as error:
        _log.info("old sessions not deleted", extra={"reason": error.reason_name})
        return False
    if deleted:
        _log.info("old sessions deleted", extra={"sessions": deleted})
    return True
