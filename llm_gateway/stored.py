"""A reply as replicas share it: what is known about it, and its bytes."""

from __future__ import annotations

import hashlib
import math
import zlib
from dataclasses import dataclass
from typing import Final

import msgspec

from llm_gateway.generation import FinishReason, Reply

# In front of each value: raise it when the encoding changes. Values without it are somebody else's.
MAGIC: Final = b"ion2"
COMPRESSED_ABOVE_BYTES: Final = 1024
MOST_BODY_BYTES: Final = 4 << 20  # several times the largest reply that the contract allows
_PLAIN: Final = b"p"
_COMPRESSED: Final = b"z"
_TIME_DIGITS: Final = 13  # milliseconds, until the year 2286
_HEADER_BYTES: Final = len(MAGIC) + 1 + 2 * _TIME_DIGITS
_MAX_TOKENS: Final = 2**31 - 1  # of an int32 of the contract


class Stored(msgspec.Struct, array_like=True, frozen=True):
    """A reply and when it was begun, is fresh until and is used until, in Unix seconds; the persona, the model as asked
    for and the hash of the scope say what invalidates it. `traceparent` is of the call that made it, "" where that was
    not sampled or is not known: earlier releases write none, and leave it unread."""

    reply: Reply
    made_at: float
    fresh_until: float
    expires_at: float
    persona: str
    model: str
    scope: str
    traceparent: str = ""

    @property
    def is_complete(self) -> bool:
        return self.reply.finish_reason is FinishReason.STOP


@dataclass(frozen=True, slots=True)
class Found:
    """A reply that was made earlier, or for another call. `is_stale`: it is due to be made anew. `traceparent` as in
    Stored."""

    reply: Reply
    age_seconds: float = 0.0
    is_stale: bool = False
    traceparent: str = ""


def scope_hash(scope: str) -> str:
    return hashlib.blake2b(scope.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Stored)


def encode(stored: Stored) -> bytes:
    """Magic, a flag, two times in milliseconds that a script in Redis reads, and the body."""
    body, flag = _encoder.encode(stored), _PLAIN
    if len(body) > COMPRESSED_ABOVE_BYTES:
        body, flag = zlib.compress(body, 1), _COMPRESSED
    return MAGIC + flag + _times(stored) + body


def decode(value: bytes) -> Stored | None:
    """None where the bytes are not what `encode` makes."""
    if not value.startswith(MAGIC):
        return None
    try:
        stored = _decoder.decode(_body(value))
        is_own = _is_sound(stored) and _times(stored) == value[len(MAGIC) + 1 : _HEADER_BYTES]
    except (msgspec.MsgspecError, zlib.error, ValueError, OverflowError, RecursionError):
        return None
    return stored if is_own else None


def _body(value: bytes) -> bytes:
    """Raises ValueError or zlib.error where there is none, or one of more than MOST_BODY_BYTES."""
    flag, body = value[len(MAGIC) : len(MAGIC) + 1], value[_HEADER_BYTES:]
    if flag == _PLAIN:
        return body
    if flag != _COMPRESSED:
        raise ValueError("neither plain nor compressed")
    inflater = zlib.decompressobj()
    inflated = inflater.decompress(body, MOST_BODY_BYTES)
    if not inflater.eof or inflater.unused_data:
        raise ValueError("cut, too large, or with a tail")
    return inflated


def _times(stored: Stored) -> bytes:
    return b"%013d%013d" % (round(stored.made_at * 1000), round(stored.fresh_until * 1000))


def _is_sound(stored: Stored) -> bool:
    usage = stored.reply.usage
    counts = (usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.thinking_tokens)
    times = (stored.made_at, stored.fresh_until, stored.expires_at)
    are_times = all(math.isfinite(time) and 0 <= time < 10.0 ** (_TIME_DIGITS - 3) - 1 for time in times)
    return bool(stored.reply.text) and are_times and all(0 <= count <= _MAX_TOKENS for count in counts)
