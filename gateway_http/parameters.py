"""What requests say in their headers."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from litestar.datastructures import State
from litestar.params import HeaderParameter

from chassis.deadline import Deadline
from gateway_http.negotiation import header
from ion.llm.v1 import llm_pb2

_MAX_AGE: Final = re.compile(r"max-age=(\d{1,18})")
_MAX_INT32: Final = 2**31 - 1

TimeoutHeader = Annotated[
    float | None,
    HeaderParameter(name="X-Request-Timeout", gt=0, le=300, description="Seconds the answer may take.", required=False),
]


def deadline_of(state: State, timeout_seconds: float | None) -> Deadline:
    return Deadline.after(timeout_seconds or state.request_timeout_seconds)


def cache_control_of(scope: Any) -> llm_pb2.CacheControl | None:
    """What a Cache-Control header means for the response cache; None where there is none that means anything."""
    given = header(scope, b"cache-control")
    if not given:
        return None
    directives = {directive.strip() for directive in given.split(",")}
    control = llm_pb2.CacheControl(bypass="no-cache" in directives, no_store="no-store" in directives)
    ages = [int(found[1]) for found in map(_MAX_AGE.fullmatch, directives) if found]
    if ages:
        control.max_age_seconds = min(*ages, _MAX_INT32)
    return control if control.ByteSize() else None
