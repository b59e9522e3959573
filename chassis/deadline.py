"""A call's deadline: fixed where the call enters, passed on less a margin."""

from __future__ import annotations

import time

import grpc.aio

MAX_MARGIN_SECONDS = 0.1
MARGIN_SHARE = 0.1


class Deadline:
    """A point in time on the monotonic clock."""

    __slots__ = ("_at",)

    def __init__(self, at: float) -> None:
        self._at = at

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        return cls(time.monotonic() + seconds)

    @classmethod
    def of(cls, context: grpc.aio.ServicerContext, *, default_seconds: float) -> Deadline:
        """The caller's deadline, or `default_seconds` from now where the caller gave none."""
        remaining = context.time_remaining()
        return cls.after(default_seconds if remaining is None else remaining)

    def remaining_seconds(self) -> float:
        """Never negative."""
        return max(0.0, self._at - time.monotonic())

    def less_margin(self) -> Deadline:
        """The deadline for the next hop: a tenth earlier, at most 100 ms, so that its failure can still be answered."""
        return Deadline(self._at - min(MAX_MARGIN_SECONDS, MARGIN_SHARE * self.remaining_seconds()))

    def copy(self) -> Deadline:
        return Deadline(self._at)

    def extend_to(self, other: Deadline) -> None:
        """Move to `other` where that is later: a shared call lives as long as its most patient caller."""
        self._at = max(self._at, other._at)
