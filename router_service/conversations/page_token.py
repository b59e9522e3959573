"""Tokens of pages: where a list goes on. They are opaque to callers and hold nothing but a place."""

from __future__ import annotations

import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Final

from chassis.errors import InvalidField

_ALPHABET: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def encode_token(kind: str, place: Sequence[int]) -> str:
    """`kind` is one ASCII character that says of which list; the numbers have 64 bits."""
    packed = kind.encode() + struct.pack(f">{len(place)}q", *place)
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode_token(kind: str, token: str, numbers: int) -> tuple[int, ...]:
    """The place that `encode_token` was given. Raises InvalidField for all that it does not make of this kind."""
    packed = _unpack(token)
    if len(packed) != 1 + 8 * numbers:
        raise invalid_token()
    place: tuple[int, ...] = struct.unpack(f">{numbers}q", packed[1:])
    if min(place) < 0 or encode_token(kind, place) != token:
        raise invalid_token()
    return place


def invalid_token() -> InvalidField:
    return InvalidField("page_token", "must be the token of the page before, of the same list")


def _unpack(token: str) -> bytes:
    if not _ALPHABET.fullmatch(token) or len(token) % 4 == 1:
        raise invalid_token()
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))
