"""The response cache: replies in this process, and behind them those that all replicas share."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from llm_gateway.generation import GenerationRequest, Reply
from llm_gateway.invalidation import Invalidations, Tags
from llm_gateway.leases import Followed, Lease, enter
from llm_gateway.near_cache import NearCache
from llm_gateway.redis_store import Store
from llm_gateway.stored import Found, Stored, decode, encode, scope_hash

__all__ = ["Followed", "Found", "Lease", "ResponseCache", "Statistics", "Stored", "cache_key"]

# Part of each key: raise it when a reply would no longer be right for the same request.
KEY_VERSION: Final = "v2"
# Replies that are stored together are not to run out together.
SHORTEST_TTL_SHARE: Final = 0.9


def cache_key(request: GenerationRequest) -> str:
    """The same for two requests exactly where they may share a reply; the scope is a part of its own. In a cluster, all
    keys that begin with it are on one node."""
    content = hashlib.blake2b(b"".join(_framed(request)), digest_size=32).hexdigest()
    return f"ion:{KEY_VERSION}:{{{scope_hash(request.scope)}.{content}}}"


def _framed(request: GenerationRequest) -> Iterator[bytes]:
    """Every field that can change the reply, each behind its length, so that no two requests run together."""
    for field in _fields(request):
        encoded = field.encode("utf-8", "surrogatepass")
        yield len(encoded).to_bytes(4)
        yield encoded


def _fields(request: GenerationRequest) -> Iterator[str]:
    parameters, prompt = request.parameters, request.prompt
    yield request.model
    yield request.persona  # the offline backend's voice
    yield request.language
    yield _exact(parameters.temperature)
    yield _exact(parameters.top_p)
    yield str(parameters.max_output_tokens)
    yield str(len(parameters.stop_sequences))
    yield from parameters.stop_sequences
    yield prompt.system_instruction
    for turn in prompt.turns:
        yield turn.role
        yield turn.text
    # Later fields, each behind a name that is no role, and only where it is set: the keys of earlier releases stay.
    if parameters.response_json_schema:
        yield "response_json_schema"
        yield parameters.response_json_schema
    if parameters.minimal_thinking:
        yield "minimal_thinking"
    if request.max_input_tokens:
        yield "max_input_tokens"
        yield str(request.max_input_tokens)


def _exact(value: float | None) -> str:
    return "" if value is None else (value + 0.0).hex()  # -0.0 is 0.0


@dataclass(slots=True)
class Statistics:
    """Counts since the start, as the contract's CacheStatistics says; `coalesced` is counted by `completion`. Fresh
    and stale are counted apart, so that none of these ever goes back for who reads them in another thread."""

    near_fresh: int = 0
    near_stale: int = 0
    shared_fresh: int = 0
    shared_stale: int = 0
    coalesced: int = 0
    followed: int = 0
    taken_over: int = 0
    misses: int = 0
    stored: int = 0
    invalidated: int = 0
    foreign_values: int = 0
    fenced_off: int = 0

    @property
    def near_hits(self) -> int:
        return self.near_fresh + self.near_stale

    @property
    def shared_hits(self) -> int:
        return self.shared_fresh + self.shared_stale

    @property
    def stale_hits(self) -> int:
        return self.near_stale + self.shared_stale


class ResponseCache:
    """The near cache in front of the shared store. Nothing waits longer for the store than the store says."""

    def __init__(
        self,
        store: Store,
        *,
        ttl_seconds: float,
        max_entries: int,
        stale_seconds: float = 0.0,
        now: Callable[[], float] = time.monotonic,
        unix_now: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Replies are fresh for 0.9 to 1.0 of `ttl_seconds`, by `draw` (uniform from 0 to 1), and for `stale_seconds`
        after that they are used while they are made anew. `now` times what is in this process; `unix_now` what replicas
        share."""
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._stale_seconds = stale_seconds
        self._unix_now = unix_now
        self._draw = draw
        self._near = NearCache(max_entries, now=now)
        self._invalidations = Invalidations(store, keep_seconds=ttl_seconds + stale_seconds, unix_now=unix_now)
        self._is_closed = False
        self.enabled = store.enabled or max_entries > 0
        self.statistics = Statistics()

    @property
    def near_entries(self) -> int:
        return len(self._near)

    @property
    def late_commands(self) -> int:
        return self._store.late

    @property
    def refused_commands(self) -> int:
        return self._store.refusals

    @property
    def store_connected(self) -> bool | None:
        """None where there is no store, or none any more."""
        return self._store.connected if self._store.enabled and not self._is_closed else None

    def get_near(self, key: str, *, max_age_seconds: float | None = None) -> Found | None:
        """The reply where this process has it, of at most that age; never waits."""
        kept = self._near.get(key)
        if kept is None:
            return None
        stored, found = kept
        if self._invalidations.covers(stored):
            self.statistics.invalidated += 1
            self._near.discard(key)
            return None
        if max_age_seconds is not None and found.age_seconds > max_age_seconds:
            return None
        self.statistics.near_fresh += not found.is_stale
        self.statistics.near_stale += found.is_stale
        return found

    async def enter(
        self,
        key: str,
        *,
        streamed: bool,
        max_age_seconds: float | None = None,
        accept_stale: bool = True,
        after: Followed | None = None,
    ) -> Found | Lease | Followed | None:
        """The shared reply where there is one that may be used; else the lease of a call that this replica is to make,
        or the call of another replica to follow. None: there is no store in time, and the caller goes alone.

        `accept_stale` is False for who makes a stale reply anew; `after` is the call whose leader is gone."""
        if not self._store.enabled:
            self.statistics.misses += 1
            return None
        now = self._unix_now()
        made_after = 0.0 if max_age_seconds is None else now - max_age_seconds
        entered = await self._enter(key, streamed, made_after, 0.0 if accept_stale else now)
        if isinstance(entered, bytes):
            found = self._use(key, entered)
            if found is not None:
                return found
            entered = await self._enter(key, streamed, math.inf, math.inf)  # as if there were no reply
        if not isinstance(entered, Followed):
            self.statistics.misses += 1
        if isinstance(entered, Lease) and after is not None:
            self.statistics.taken_over += 1
        return None if isinstance(entered, bytes) else entered

    async def _enter(
        self, key: str, streamed: bool, made_after: float, fresh_after: float
    ) -> bytes | Lease | Followed | None:
        read = partial(self._read_followed, key, self._unix_now())
        return await enter(
            self._store, key, streamed=streamed, made_after=made_after, fresh_after=fresh_after, read=read
        )

    async def put(
        self,
        key: str,
        request: GenerationRequest,
        reply: Reply,
        *,
        made_at: float,
        lease: Lease | None,
        traceparent: str = "",
    ) -> None:
        """Keep a complete reply that was begun at `made_at` (Unix seconds) and not invalidated since. One that is not
        kept still goes to those who follow the lease; a late leader's goes nowhere. `traceparent` as in Stored."""
        stored = self._stored(request, reply, made_at, traceparent)
        is_kept = stored.is_complete and not self._invalidations.covers(stored)
        if await self._share(key, stored, lease, is_kept=is_kept) and is_kept:
            self.statistics.stored += 1
            self._keep_near(key, stored)

    async def invalidate(self, *, persona: str = "", model: str = "", scope: str | None = None) -> bool:
        """Use no reply any more that was begun until now and matches all that is given. True where all replicas will
        do so; this one does in any case."""
        scope_tag = None if scope is None else scope_hash(scope)
        return await self._invalidations.add(Tags(persona.lower() or None, model or None, scope_tag))

    async def close(self) -> None:
        self._is_closed = True
        await self._store.close()

    def _stored(self, request: GenerationRequest, reply: Reply, made_at: float, traceparent: str) -> Stored:
        share = SHORTEST_TTL_SHARE + (1 - SHORTEST_TTL_SHARE) * self._draw()
        fresh_until = self._unix_now() + share * self._ttl_seconds
        expires_at = fresh_until + self._stale_seconds
        scope = scope_hash(request.scope)
        return Stored(reply, made_at, fresh_until, expires_at, request.persona, request.model, scope, traceparent)

    async def _share(self, key: str, stored: Stored, lease: Lease | None, *, is_kept: bool) -> bool:
        """False where another replica has led since."""
        ttl_seconds = stored.expires_at - self._unix_now() if is_kept else None
        if lease is not None:
            return await self._share_fenced(key, stored, lease, ttl_seconds)
        if ttl_seconds is not None and self._store.enabled:
            ttl_milliseconds = max(1, round(ttl_seconds * 1000))
            sent = self._store.send("SET", key, encode(stored), "PX", ttl_milliseconds)
            await self._store.in_time(sent, question="SET reply")
        return True

    async def _share_fenced(self, key: str, stored: Stored, lease: Lease, ttl_seconds: float | None) -> bool:
        answer = lease.finish(encode(stored), ttl_seconds=ttl_seconds)
        await self._store.in_time(answer, question="EVAL settle")
        if not answer.done():
            answer.add_done_callback(partial(self._note_late_fence, key, stored))
            return True
        return not self._is_fenced_off(answer)

    def _note_late_fence(self, key: str, stored: Stored, answer: asyncio.Future[Any]) -> None:
        if self._is_fenced_off(answer):
            self._near.discard(key, stored)

    def _is_fenced_off(self, answer: asyncio.Future[Any]) -> bool:
        is_fenced_off = bool(answer.result() == 0)
        self.statistics.fenced_off += is_fenced_off
        return is_fenced_off

    def _use(self, key: str, value: bytes) -> Found | None:
        """The stored reply, where it is ours and not over."""
        stored = decode(value)
        if stored is None or not stored.is_complete:
            self.statistics.foreign_values += 1
            return None
        if self._invalidations.covers(stored):
            self.statistics.invalidated += 1
            return None
        now = self._unix_now()
        if stored.expires_at <= now:
            return None
        self._keep_near(key, stored)
        found = Found(stored.reply, max(0.0, now - stored.made_at), stored.fresh_until <= now, stored.traceparent)
        self.statistics.shared_fresh += not found.is_stale
        self.statistics.shared_stale += found.is_stale
        return found

    def _read_followed(self, key: str, followed_since: float, value: bytes) -> Found | None:
        """The reply that another replica made meanwhile. Who followed before it was invalidated may still have it."""
        stored = decode(value)
        if stored is None:
            self.statistics.foreign_values += 1
            return None
        if stored.made_at <= self._invalidations.latest(stored) < followed_since:
            self.statistics.invalidated += 1
            return None
        if stored.is_complete:
            self._keep_near(key, stored)
        self.statistics.followed += 1
        return Found(stored.reply, traceparent=stored.traceparent)

    def _keep_near(self, key: str, stored: Stored) -> None:
        self._near.put(
            key,
            stored,
            unix_now=self._unix_now(),
            fresh_seconds=self._ttl_seconds,
            stale_seconds=self._stale_seconds,
        )
