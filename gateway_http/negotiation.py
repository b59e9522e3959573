"""What a client would rather have: Accept headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from gateway_http import event_stream

_JSON: Final = "application/json"


def header(scope: Any, name: bytes) -> str:
    """All values of the header, in lower case, joined by commas; "" where there is none."""
    values = [value for key, value in scope["headers"] if key == name]
    return b",".join(values).decode("latin-1").lower() if values else ""


def qualities(header: str) -> dict[str, float]:
    """The values of an Accept header with their weights, 0 to 1."""
    return dict(_weighed(part) for part in header.lower().split(",") if part.strip())


def wants_event_stream(scope: Any) -> bool:
    """Whether the request asks for one by name, and not rather for JSON."""
    accept = header(scope, b"accept")
    if event_stream.MEDIA_TYPE not in accept:
        return False
    wanted = qualities(accept)
    stream = wanted.get(event_stream.MEDIA_TYPE, 0.0)
    return stream > 0 and stream >= wanted.get(_JSON, 0.0)


def _weighed(part: str) -> tuple[str, float]:
    value, *parameters = (piece.strip() for piece in part.split(";"))
    return value, _weight(parameters)


def _weight(parameters: Iterable[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0
