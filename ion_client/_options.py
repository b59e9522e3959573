"""What holds for all calls of a client, and what goes with each of them."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ion_client._asks import Ask, StreamAsk
from ion_client._retry import Attempts, Deadline, Envelope

API_KEY_VARIABLE: Final = "ION_API_KEY"
# What the HTTP interface allows; over gRPC the same, so that a client behaves alike over both.
MAX_TIMEOUT_SECONDS: Final = 300.0
ApiKey = str | Callable[[], str]
_HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Options:
    """`api_key` is a key or a JWT, or what gives the current one; it is asked once a call."""

    api_key: ApiKey | None = field(default=None, repr=False)
    user_id: str = ""
    timeout_seconds: float = 30.0
    max_retries: int = 2

    def __post_init__(self) -> None:
        checked_timeout(self.timeout_seconds)
        if self.max_retries < 0:
            raise ValueError(f"max_retries must be at least 0, not {self.max_retries}")
        if isinstance(self.api_key, str):
            checked_key(self.api_key)

    def attempts_at(self, ask: Ask[Any] | StreamAsk[Any], timeout_seconds: float | None) -> Attempts:
        """Fixes the call's deadline and what goes with it."""
        timeout = self.timeout_seconds if timeout_seconds is None else checked_timeout(timeout_seconds)
        envelope = Envelope(self._headers(), Deadline.after(timeout))
        return Attempts(envelope, max_retries=self.max_retries, repeatable=ask.repeatable)

    def _headers(self) -> dict[str, str]:
        traceparent = current_traceparent()
        # A request goes by the id of its trace where it has one, as inside the service.
        headers = {"x-request-id": traceparent[3:35] if traceparent else uuid.uuid4().hex}
        if traceparent:
            headers["traceparent"] = traceparent
        key = self.api_key() if callable(self.api_key) else self.api_key
        if key:
            headers["authorization"] = f"Bearer {checked_key(key)}"
        return headers


def key_or_environment(api_key: ApiKey | None) -> ApiKey | None:
    """The key given, or else that of ION_API_KEY."""
    return api_key or os.environ.get(API_KEY_VARIABLE, "").strip() or None


def checked_key(key: str) -> str:
    """Raises ValueError, which does not show it, where it cannot travel in a header."""
    if not _HEADER_VALUE.fullmatch(key):
        raise ValueError("api_key must be printable ASCII without white space")
    return key


def checked_timeout(seconds: float) -> float:
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise ValueError(f"timeout_seconds must be above 0 and at most {MAX_TIMEOUT_SECONDS:g}, not {seconds:g}")
    return seconds


def current_traceparent() -> str:
    """The W3C header of the current span; "" where there is none. Nobody has a span who has not imported
    OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    context = trace.get_current_span().get_span_context() if trace else None
    if context is None or not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
