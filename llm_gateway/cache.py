"""The response cache: replies in this process, and behind them those that all replicas share."""

from __future__ import annotations

import hashlib
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from llm_gateway.generation import FinishReason, GenerationRequest, Reply
from llm_gateway.redis_store import Store

# Part of each key: raise it when a reply would no longer be right for the same request.
KEY_VERSION: Final = "v1"
# In front of each value: raise it when the encoding changes. Values without it are somebody else's.
_VALUE_MAGIC: Final = b"ion1"
_MAX_TOKENS: Final = 2**31 - 1  # of an int32 of the contract


def cache_key(request: GenerationRequest) -> str:
    """The same for two requests exactly where they may share a reply; the scope is a part of its own."""
    scope = hashlib.blake2b(request.scope.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    content = hashlib.blake2b(b"".join(_framed(request)), digest_size=32).hexdigest()
    return f"ion:reply:{KEY_VERSION}:{scope}:{content}"


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


def _exact(value: float | None) -> str:
    return "" if value is None else (value + 0.0).hex()  # -0.0 is 0.0


class Stored(msgspec.Struct, array_like=True, frozen=True):
    """A reply and when it is no longer to be used, in Unix seconds."""

    reply: Reply
    expires_at: float


@dataclass(slots=True)
class Statistics:
    """Counts since the start."""

    near_hits: int = 0
    shared_hits: int = 0
    misses: int = 0
    stored: int = 0
    foreign_values: int = 0


class NearCache:
    """Replies in this process: at most `max_entries`, the least recently used leave first."""

    def __init__(self, max_entries: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._now = now
        self._entries: OrderedDict[str, tuple[Reply, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str) -> Reply | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        reply, expires_at = entry
        if expires_at <= self._now():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return reply

    def put(self, key: str, reply: Reply, *, ttl_seconds: float) -> None:
        self._entries[key] = (reply, self._now() + ttl_seconds)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)


class ResponseCache:
    """The near cache in front of the shared store."""

    def __init__(
        self,
        store: Store,
        *,
        ttl_seconds: float,
        max_entries: int,
        now: Callable[[], float] = time.monotonic,
        unix_now: Callable[[], float] = time.time,
    ) -> None:
        """`now` times what is in this process; `unix_now` what replicas share."""
        self._store = store
        self._ttl_seconds = ttl_seconds
        self._unix_now = unix_now
        self._near = NearCache(max_entries, now=now)
        self.enabled = store.enabled or max_entries > 0
        self.statistics = Statistics()

    def get_near(self, key: str) -> Reply | None:
        """The reply where this process has it; never waits."""
        reply = self._near.get(key)
        if reply is not None:
            self.statistics.near_hits += 1
        return reply

    async def get_shared(self, key: str) -> Reply | None:
        """The reply where another replica, or this one in an earlier life, has stored it."""
        value = await self._store.get(key)
        stored = None if value is None else self._decode(value)
        left_seconds = 0.0 if stored is None else stored.expires_at - self._unix_now()
        if stored is None or left_seconds <= 0:
            self.statistics.misses += 1
            return None
        self.statistics.shared_hits += 1
        self._near.put(key, stored.reply, ttl_seconds=min(left_seconds, self._ttl_seconds))
        return stored.reply

    async def put(self, key: str, reply: Reply) -> None:
        """Keep a complete reply; a cut one is not kept."""
        if reply.finish_reason is not FinishReason.STOP:
            return
        stored = Stored(reply, self._unix_now() + self._ttl_seconds)
        self.statistics.stored += 1
        self._near.put(key, reply, ttl_seconds=self._ttl_seconds)
        await self._store.set(key, encode(stored), ttl_seconds=self._ttl_seconds)

    async def close(self) -> None:
        await self._store.close()

    def _decode(self, value: bytes) -> Stored | None:
        stored = decode(value)
        if stored is None:
            self.statistics.foreign_values += 1
        return stored


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Stored)


def encode(stored: Stored) -> bytes:
    return _VALUE_MAGIC + _encoder.encode(stored)


def decode(value: bytes) -> Stored | None:
    """None where the bytes are not a reply as `put` stores it."""
    if not value.startswith(_VALUE_MAGIC):
        return None
    try:
        stored = _decoder.decode(memoryview(value)[len(_VALUE_MAGIC) :])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return stored if _is_sound(stored) else None


def _is_sound(stored: Stored) -> bool:
    reply, usage = stored.reply, stored.reply.usage
    counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.thinking_tokens)
    is_complete = bool(reply.text) and reply.finish_reason is FinishReason.STOP
    return is_complete and math.isfinite(stored.expires_at) and all(0 <= count <= _MAX_TOKENS for count in counts)
