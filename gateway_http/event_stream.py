"""Server-sent events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from chassis.errors import IonError
from gateway_http.streaming import Format

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT: Final = b": keep-alive\n\n"
_HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",  # for nginx and those that follow it: pass on what is there
}


class Event(NamedTuple):
    """`name` is "" for an event without one. `data` becomes JSON; bytes stand as they are, and are one line."""

    name: str
    data: Any


def event_stream(failed: Callable[[IonError], Event], *, silence_seconds: float = 15.0) -> Format:
    """The format of a stream of `Event`s; `failed` makes the event that ends a stream which broke off."""
    return Format(
        MEDIA_TYPE,
        frame,
        lambda error: frame(failed(error)),
        _HEADERS,
        heartbeat=HEARTBEAT,
        silence_seconds=silence_seconds,
    )


def frame(event: Event) -> bytes:
    name, data = event
    line = data if isinstance(data, bytes) else msgspec.json.encode(data)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), line) if name else b"data: %b\n\n" % line
