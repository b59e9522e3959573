"""Which failed calls are made again, and when.

A failure is retried where the service could not be reached or had no room (Unavailable, RateLimited), never before it
said, never past the deadline. What must not be done twice (see `Ask.repeatable`) is retried only where it certainly was
not done.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Final

from ion_client.errors import IonClientError, RateLimited, Unavailable

FIRST_BACKOFF_SECONDS: Final = 0.2
MAX_BACKOFF_SECONDS: Final = 5.0


class Deadline:
    """A point in time on the monotonic clock."""

    __slots__ = ("_at",)

    def __init__(self, at: float) -> None:
        self._at = at

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    def remaining_seconds(self) -> float:
        """Never negative."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.remaining_seconds() == 0.0


def wait_before_retry(
    error: IonClientError,
    attempt: int,
    *,
    max_retries: int,
    repeatable: bool,
    remaining_seconds: float,
    jitter: float,
) -> float | None:
    """Seconds to wait before the next attempt, or None where there is none. `attempt` counts from 0, `jitter` is 0 to
    1: the wait is half to all of a backoff that doubles, on top of what the service asked for."""
    retried = isinstance(error, Unavailable | RateLimited) and error.retryable
    if not retried or attempt >= max_retries or not (repeatable or error.refused):
        return None
    backoff = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2**attempt) * (0.5 + jitter / 2)
    wait = (error.retry_after_seconds or 0.0) + backoff
    return wait if wait < remaining_seconds else None


@dataclass(frozen=True, slots=True)
class Envelope:
    """What goes with each attempt at one call: its headers (gRPC calls them metadata) and when it has to be
    answered."""

    headers: dict[str, str]
    deadline: Deadline

    @property
    def request_id(self) -> str:
        return self.headers["x-request-id"]


class Attempts:
    """The attempts at one call."""

    def __init__(self, envelope: Envelope, *, max_retries: int, repeatable: bool) -> None:
        self.envelope = envelope
        self._max_retries = max_retries
        self._repeatable = repeatable
        self._failed = 0

    def wait_seconds(self, error: IonClientError) -> float:
        """How long to wait after the failure of the newest attempt. Raises it where there is to be no other."""
        error.request_id = error.request_id or self.envelope.request_id
        wait = wait_before_retry(
            error,
            self._failed,
            max_retries=self._max_retries,
            repeatable=self._repeatable,
            remaining_seconds=self.envelope.deadline.remaining_seconds(),
            jitter=random.random(),
        )
        if wait is None:
            raise error
        self._failed += 1
        return wait
