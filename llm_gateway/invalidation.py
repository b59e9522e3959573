"""Which stored replies are no longer to be used: a small table that all replicas read.

A stored reply is covered where it was begun at or before an invalidation that matches its persona, model and scope. The
clocks of the replicas are taken to agree.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, Final, NamedTuple

import msgspec

from llm_gateway.redis_store import ANSWER_SECONDS, Store
from llm_gateway.stored import Stored

MAX_ENTRIES: Final = 1000
# At least: replicas of an earlier release may have kept replies for longer than this one.
KEEP_SECONDS: Final = 86_400.0
_KEY: Final = "ion:v2:invalidations"
# The oldest that are too many become one that covers all: too much is forgotten rather than too little.
_ADD: Final = """
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[3])
local excess = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[4])
if excess > 0 then
  local dropped = redis.call('ZPOPMIN', KEYS[1], excess + 1)
  redis.call('ZADD', KEYS[1], 'GT', dropped[#dropped], ARGV[5])
end
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return 1
"""


class Tags(NamedTuple):
    """What replies are matched by; None is any. `scope` is hashed, `persona` in lower case."""

    persona: str | None = None
    model: str | None = None
    scope: str | None = None


_EVERYTHING: Final = Tags()
_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = msgspec.json.Decoder(tuple[str | None, str | None, str | None])


def tags_of(stored: Stored) -> Tags:
    return Tags(stored.persona.lower(), stored.model, stored.scope)


class Invalidations:
    """The table in this process, and its share in Redis."""

    def __init__(
        self,
        store: Store,
        *,
        keep_seconds: float,
        max_entries: int = MAX_ENTRIES,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        """`keep_seconds`: the longest that a reply is stored."""
        self._store = store
        self._keep_seconds = max(KEEP_SECONDS, keep_seconds)
        self._max_entries = max_entries
        self._unix_now = unix_now
        self._times: dict[Tags, float] = {}
        self._last_read: Any = None
        store.watch("ZRANGE", _KEY, 0, -1, "WITHSCORES", on_answer=self._merge)

    def __len__(self) -> int:
        return len(self._times)

    def latest(self, stored: Stored) -> float:
        """Unix time of the latest that matches the reply, or minus infinity."""
        if not self._times:
            return -math.inf
        patterns = product(*((tag, None) for tag in tags_of(stored)))
        return max(self._times.get(Tags(*pattern), -math.inf) for pattern in patterns)

    def covers(self, stored: Stored) -> bool:
        return stored.made_at <= self.latest(stored)

    async def add(self, tags: Tags) -> bool:
        """Here at once, then in Redis. True where all replicas will read it."""
        now = self._unix_now()
        self._note([(tags, now)])
        asked = self._store.send(
            "EVAL", _ADD, 1, _KEY, _encode(tags), repr(now), repr(now - self._keep_seconds), self._max_entries,
            _encode(_EVERYTHING), round(self._keep_seconds * 1000),
        )  # fmt: skip
        return bool(await self._store.in_time(asked, wait_seconds=ANSWER_SECONDS) == 1)

    def _merge(self, answer: Any) -> None:
        if answer != self._last_read:
            self._last_read = answer
            self._note(_parsed(answer, no_later_than=self._unix_now() + KEEP_SECONDS))

    def _note(self, entries: Iterator[tuple[Tags, float]] | list[tuple[Tags, float]]) -> None:
        for tags, at in entries:
            self._times[tags] = max(at, self._times.get(tags, at))
        oldest = self._unix_now() - self._keep_seconds
        self._times = bounded({tags: at for tags, at in self._times.items() if at >= oldest}, self._max_entries)


def bounded(times: dict[Tags, float], max_entries: int) -> dict[Tags, float]:
    """The newest; the others become one that covers all."""
    excess = len(times) - max_entries
    if excess <= 0:
        return times
    ordered = sorted(times.items(), key=lambda entry: entry[1])
    kept, dropped = dict(ordered[excess + 1 :]), ordered[excess]
    kept[_EVERYTHING] = max(dropped[1], kept.get(_EVERYTHING, -math.inf))
    return kept


def _parsed(answer: Any, *, no_later_than: float) -> Iterator[tuple[Tags, float]]:
    """What is not an entry is left out, and so are times that no clock of ours can have shown."""
    if not isinstance(answer, list):
        return
    for member, score in zip(answer[::2], answer[1::2], strict=False):
        try:
            tags, at = Tags(*_decoder.decode(member)), float(score)
        except (msgspec.MsgspecError, TypeError, ValueError):
            continue
        if at <= no_later_than:
            yield tags, at
