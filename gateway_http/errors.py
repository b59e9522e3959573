"""Failures as HTTP answers: the one place that knows which status a failure has."""

from __future__ import annotations

import logging
import math
import re
from http import HTTPStatus
from typing import Any, Final

import grpc
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from chassis.errors import IonError
from chassis.observability import tracing
from gateway_http import exchange
from gateway_http.schemas import ErrorItem, Problem, ValidationFailed
from ion.error.v1.reason_pb2 import Reason

_log = logging.getLogger(__name__)

CLIENT_CLOSED_REQUEST: Final = 499
_MISSING: Final = re.compile(r"missing required field `([^`]+)`")
# The framework names a header's parameter, not the header.
_HEADERS: Final = {"timeout_seconds": "X-Request-Timeout", "user_id": "X-User-Id"}
_STATUS: Final[dict[grpc.StatusCode, int]] = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.UNPROCESSABLE_ENTITY,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.SERVICE_UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: HTTPStatus.GATEWAY_TIMEOUT,
    grpc.StatusCode.CANCELLED: CLIENT_CLOSED_REQUEST,
    grpc.StatusCode.FAILED_PRECONDITION: HTTPStatus.BAD_GATEWAY,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
}
# Where the reason says more than its code.
_STATUS_OF_REASON: Final[dict[int, int]] = {Reason.REASON_RATE_LIMITED: HTTPStatus.TOO_MANY_REQUESTS}
_COME_AGAIN: Final = (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
# Where requests without a body have the fields that the router speaks of.
_PLACES: Final = {
    "session_id": ["path", "session_id"],
    "user_id": ["header", "X-User-Id"],
    "page_size": ["query", "limit"],
    "page_token": ["query", "cursor"],
}


def status_of(error: IonError) -> int:
    by_code = _STATUS.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    return _STATUS_OF_REASON.get(error.reason, by_code)


def headers_of(error: IonError) -> dict[str, str]:
    """When to come again, what to show, and what the error itself brings."""
    headers, status = dict(error.headers), status_of(error)
    if status in _COME_AGAIN:
        headers["Retry-After"] = str(math.ceil(error.retry_after_seconds or 1))
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def on_ion_error(request: Request[Any, Any, Any], error: IonError) -> Response[Any]:
    status = status_of(error)
    exchange.current().failure = error.reason_name
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return invalid(_items(error, has_body=request.scope["method"] == "POST"))
    return problem(status, error.message, error.reason_name, headers_of(error))


def _items(error: IonError, *, has_body: bool) -> list[ErrorItem]:
    kind = error.reason_name.lower()
    items = [ErrorItem(kind, _place(item.field, has_body=has_body), item.description) for item in error.violations]
    return items or [ErrorItem(kind, ["body"], error.message)]


def _place(field: str, *, has_body: bool) -> list[str | int]:
    if not has_body and field in _PLACES:
        return [*_PLACES[field]]
    return ["body", *field.split(".")]


def on_http_error(_request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """What the framework refuses: routes, methods, sizes, bodies that do not decode."""
    if isinstance(error, ValidationException):
        return invalid([_item(found) for found in _as_list(error.extra)])
    if error.status_code == HTTPStatus.BAD_REQUEST:
        return invalid([ErrorItem("json_invalid", ["body"], "must be valid JSON in UTF-8")])
    phrase = HTTPStatus(error.status_code)
    return problem(phrase, phrase.phrase, phrase.name, error.headers)


def on_bad_text(_request: Request[Any, Any, Any], _error: UnicodeDecodeError) -> Response[Any]:
    return invalid([ErrorItem("json_invalid", ["body"], "must be valid JSON in UTF-8")])


def on_defect(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    return on_ion_error(request, as_told(error, request.scope.get("path_template", "no route")))


def as_told(error: Exception, where: str) -> IonError:
    """The failure as callers may hear of it; a defect is for the log."""
    if isinstance(error, IonError):
        return error
    _log.error("defect in %s", where, exc_info=error)
    return IonError(Reason.REASON_INTERNAL)


def invalid(items: list[ErrorItem]) -> Response[Any]:
    body = ValidationFailed(items, tracing.current().request_id)
    return Response(body, status_code=HTTPStatus.UNPROCESSABLE_ENTITY, media_type=MediaType.JSON)


def problem(status: int, detail: str, reason: str, headers: dict[str, str] | None = None) -> Response[Any]:
    body = Problem(detail, reason, tracing.current().request_id)
    return Response(body, status_code=status, headers=headers or {}, media_type=MediaType.JSON)


def _as_list(extra: Any) -> list[dict[str, Any]]:
    return extra if isinstance(extra, list) and extra else [{}]


def _item(found: dict[str, Any]) -> ErrorItem:
    """The framework calls the whole body "data"; a missing field is named in the text alone."""
    message = str(found.get("message", ""))
    missing = _MISSING.search(message)
    if missing:
        return ErrorItem("missing", ["body", missing[1]], "is required")
    key = str(found.get("key", "data"))
    if found.get("source") == "header":
        return ErrorItem("type_error", ["header", _HEADERS.get(key, key)], message)
    if found.get("source") in ("query", "path"):
        return ErrorItem("type_error", [found["source"], key], message)
    path = [] if key == "data" else key.split(".")
    return ErrorItem("type_error", ["body", *path], message if "Expected" in message else "must be a JSON object")
