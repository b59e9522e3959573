"""Replies in this process's memory."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llm_gateway.stored import Found, Stored

MAX_BYTES: Final = 64 << 20
_ENTRY_BYTES: Final = 1500  # what holds a text, measured with small ones


@dataclass(frozen=True, slots=True)
class _Kept:
    """An entry, with its times on this process's clock."""

    stored: Stored
    made_at: float
    fresh_until: float
    expires_at: float
    size: int


class NearCache:
    """At most `max_entries` of at most `max_bytes` together; the least recently used leave first."""

    def __init__(
        self, max_entries: int, *, max_bytes: int = MAX_BYTES, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._now = now
        self._entries: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> tuple[Stored, Found] | None:
        kept = self._entries.get(key)
        if kept is None:
            return None
        now = self._now()
        if kept.expires_at <= now:
            self.discard(key)
            return None
        self._entries.move_to_end(key)
        stored = kept.stored
        age_seconds = max(0.0, now - kept.made_at)
        return stored, Found(stored.reply, age_seconds, kept.fresh_until <= now, stored.traceparent)

    def put(self, key: str, stored: Stored, *, unix_now: float, fresh_seconds: float, stale_seconds: float) -> None:
        """Keep it for its time, and no longer than `fresh_seconds` and `stale_seconds` after: it may come from a
        replica whose clock is wrong."""
        now = self._now()
        fresh_until = now + min(stored.fresh_until - unix_now, fresh_seconds)
        expires_at = now + min(stored.expires_at - unix_now, fresh_seconds + stale_seconds)
        size = sys.getsizeof(stored.reply.text) + _ENTRY_BYTES
        self.discard(key)
        self._entries[key] = _Kept(stored, now - (unix_now - stored.made_at), fresh_until, expires_at, size)
        self._bytes += size
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            self.discard(next(iter(self._entries)))

    def discard(self, key: str, stored: Stored | None = None) -> None:
        """Let go of it; where `stored` is given, of that one alone."""
        kept = self._entries.get(key)
        if kept is not None and (stored is None or stored is kept.stored):
            del self._entries[key]
            self._bytes -= kept.size
