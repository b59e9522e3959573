"""Calls to the model's service: the only owner of attempts (docs/adr/0003).

A request has one budget of attempts, time and tokens; the process has one for retries and one for hedges, each a share
of its traffic, so that an outage does not multiply load.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import IonError
from llm_gateway.attempts import pause_before_retry
from llm_gateway.generation import GenerationRequest, Prompt
from llm_gateway.means import Means
from llm_gateway.race import Listener, Made, Race

MAX_COUNTS: Final = 3  # attempts to count tokens


class ModelCalls:
    """Makes replies and counts tokens."""

    def __init__(self, means: Means) -> None:
        self.means = means

    async def make(self, request: GenerationRequest, deadline: Deadline, listener: Listener) -> Made:
        """One reply. Raises ModelError, or DeadlineExceeded; ModelInterrupted once text was published. Cancelling it
        cancels every call under way."""
        self.means.retry_budget.deposit()
        self.means.hedge_budget.deposit()
        return await Race(self.means, request, deadline, listener).run()

    async def count_tokens(self, model: str, prompt: Prompt, timeout_seconds: float) -> int:
        """Raises as `make` does."""
        deadline = Deadline.after(timeout_seconds)
        tried: list[str] = []
        while True:
            location = self.means.locations.choose(avoid=tried)
            tried.append(location)
            try:
                return await self.means.backend.count_tokens(
                    model, prompt, location=location, timeout_seconds=deadline.remaining_seconds()
                )
            except IonError as error:
                pause = self._pause(error, tried, deadline)
                if pause is None or len(tried) == MAX_COUNTS or not self.means.retry_budget.withdraw():
                    raise
            await asyncio.sleep(pause)

    def _pause(self, error: IonError, tried: Sequence[str], deadline: Deadline) -> float | None:
        """Before another count; None where it would not help or fit."""
        remaining_seconds = deadline.remaining_seconds()
        if not error.retryable or not remaining_seconds:
            return None
        if self.means.locations.alternative(avoid=tried) is not None:
            return 0.0
        return pause_before_retry(error.retry_after_seconds or 0.0, remaining_seconds, len(tried), self.means.draw())

    async def close(self) -> None:
        """No call is under way after it."""
        probes = tuple(self.means.probes)
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        await self.means.backend.close()
