"""Failed HTTP exchanges as errors of this client."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final

import httpx

from ion_client._retry import Deadline
from ion_client.errors import (
    CONNECTION_LOST,
    UNREACHABLE,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    IonClientError,
    NotFound,
    Unauthenticated,
    Unavailable,
    Violation,
    bad_answer,
    deadline_exceeded,
    failure,
    is_known,
)

# For answers without a reason of ION's: from something between.
_REASONS: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.TOO_MANY_REQUESTS: "RATE_LIMITED",
    HTTPStatus.GATEWAY_TIMEOUT: "DEADLINE_EXCEEDED",
}
_KINDS: Final[dict[int, type[IonClientError]]] = {
    HTTPStatus.FORBIDDEN: Unauthenticated,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.BAD_GATEWAY: Unavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable,
    HTTPStatus.REQUEST_TIMEOUT: DeadlineExceeded,
}
_INVALID: Final = "INVALID_FIELD"


def from_answer(status: int, headers: Mapping[str, str], body: bytes) -> IonClientError:
    """The failure that an answer without success tells."""
    told = _json_object(body)
    violations = _violations(told.get("detail"))
    return failure(
        _reason(status, told),
        _message(status, told, violations),
        otherwise=_kind(status),
        retry_after_seconds=_retry_after_seconds(headers.get("retry-after", "")),
        request_id=str(told.get("request_id") or headers.get("x-request-id", "")),
        violations=violations,
    )


def from_exchange(error: Exception, deadline: Deadline) -> IonClientError:
    """The failure of an exchange that came to no whole answer. All of httpx's timeouts are the call's own."""
    if isinstance(error, TimeoutError | httpx.TimeoutException) or deadline.passed:
        return deadline_exceeded()
    if isinstance(error, httpx.ConnectError | httpx.ProxyError | httpx.UnsupportedProtocol):
        return failure(UNREACHABLE, "The service could not be reached.")
    if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
        return failure(CONNECTION_LOST, "The connection ended before the answer did.")
    return bad_answer()


def _reason(status: int, told: Mapping[str, Any]) -> str:
    """A 422 has its reason in its first item, in small letters."""
    if isinstance(told.get("reason"), str):
        return str(told["reason"])
    if isinstance(told.get("detail"), list):
        named = str((told["detail"] or [{}])[0].get("type", "")).upper()
        return named if is_known(named) else _INVALID
    return _REASONS.get(status) or _phrase(status)


def _kind(status: int) -> type[IonClientError]:
    if status in _KINDS:
        return _KINDS[status]
    return InvalidRequest if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR else Internal


def _message(status: int, told: Mapping[str, Any], violations: list[Violation]) -> str:
    if isinstance(told.get("detail"), str) and "reason" in told:
        return str(told["detail"])
    if violations:
        return "; ".join(f"{item.field}: {item.description}" for item in violations)
    return f"The call failed with HTTP {status}."


def _violations(detail: Any) -> list[Violation]:
    """An item's `loc` begins with where the field is: in the body, or among the headers."""
    items = detail if isinstance(detail, list) else []
    return [Violation(".".join(map(str, item["loc"][1:])) or str(item["loc"][0]), item["msg"]) for item in items]


def _retry_after_seconds(value: str) -> float | None:
    """Seconds, or a date."""
    if value.isdecimal():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:  # the zone -0000: UTC, by somebody who may be elsewhere
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _json_object(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).name
    except ValueError:
        return f"HTTP_{status}"
