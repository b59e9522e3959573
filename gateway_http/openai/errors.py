"""Failures in the shape that OpenAI's clients read: the one place that knows which status, type and code they have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import grpc
from litestar import MediaType, Request, Response
from litestar.exceptions import HTTPException, ValidationException

from chassis.errors import IonError
from chassis.observability import tracing
from gateway_http import exchange
from gateway_http.errors import headers_of
from gateway_http.openai.schemas import ErrorBody, ErrorDetail
from ion.error.v1.reason_pb2 import Reason

PREFIX: Final = "/v1/"
INVALID: Final = "invalid_request_error"
AUTHENTICATION: Final = "authentication_error"
RATE_LIMIT: Final = "rate_limit_error"
SERVER: Final = "server_error"
_log = logging.getLogger(__name__)


class BadParameter(Exception):
    """A request that is not taken as it stands. `param` is the path of the member, such as "messages[0].content"."""

    def __init__(self, param: str | None, message: str, code: str = "invalid_value") -> None:
        self.param, self.message, self.code = param, message, code
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of a reason. Without a code the reason's own name is it."""

    status: HTTPStatus
    type: str
    code: str | None = None
    param: str | None = None


_TRY_LATER: Final = Rule(HTTPStatus.SERVICE_UNAVAILABLE, SERVER)
_RULES: Final[dict[int, Rule]] = {
    Reason.REASON_UNAUTHENTICATED: Rule(HTTPStatus.UNAUTHORIZED, AUTHENTICATION, "invalid_api_key"),
    Reason.REASON_PERMISSION_DENIED: Rule(HTTPStatus.FORBIDDEN, INVALID),
    Reason.REASON_RATE_LIMITED: Rule(HTTPStatus.TOO_MANY_REQUESTS, RATE_LIMIT, "rate_limit_exceeded"),
    Reason.REASON_PERSONA_NOT_FOUND: Rule(HTTPStatus.NOT_FOUND, INVALID, "model_not_found", "model"),
    Reason.REASON_PROMPT_TOO_LARGE: Rule(HTTPStatus.BAD_REQUEST, INVALID, "context_length_exceeded", "messages"),
    # What the model's service takes for malformed is what the caller asked for: ION's own part is the same every time.
    Reason.REASON_MODEL_REJECTED: Rule(HTTPStatus.BAD_REQUEST, INVALID),
    Reason.REASON_DEADLINE_EXCEEDED: Rule(HTTPStatus.GATEWAY_TIMEOUT, SERVER),
    Reason.REASON_INTERNAL: Rule(HTTPStatus.INTERNAL_SERVER_ERROR, SERVER),
}


def is_openai(path: str) -> bool:
    """Whether requests to this path are answered in this shape."""
    return path.startswith(PREFIX)


def refusal(error: IonError) -> tuple[int, dict[str, str], ErrorBody]:
    """Status, headers and body, for where there is no framework yet."""
    rule = _rule(error)
    return rule.status, _headers(error, rule), body(error)


def problem(status: int, message: str, reason: str) -> ErrorBody:
    """The body of a refusal that no reason of the contract stands for, such as a wrong media type."""
    return _body(message, INVALID if status < HTTPStatus.INTERNAL_SERVER_ERROR else SERVER, reason.lower())


def body(error: IonError) -> ErrorBody:
    """The body alone, as a stream that broke off ends with it."""
    rule = _rule(error)
    code = rule.code or error.reason_name.lower()
    return _body(error.message, rule.type, code, rule.param)


def on_ion_error(_request: Request[Any, Any, Any], error: IonError) -> Response[Any]:
    status, headers, answer = refusal(error)
    exchange.current().failure = error.reason_name
    return _answer(status, answer, headers)


def on_bad_parameter(_request: Request[Any, Any, Any], error: BadParameter) -> Response[Any]:
    return _answer(HTTPStatus.BAD_REQUEST, _body(error.message, INVALID, error.code, error.param))


def on_http_error(_request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """What the framework refuses: routes, methods, sizes, headers."""
    if isinstance(error, ValidationException):
        return _answer(HTTPStatus.BAD_REQUEST, _body(*_about_header(error)))
    phrase = HTTPStatus(error.status_code)
    return _answer(phrase, problem(phrase, phrase.phrase, phrase.name), error.headers)


def on_defect(request: Request[Any, Any, Any], error: Exception) -> Response[Any]:
    _log.error("defect in %s", request.scope.get("path_template"), exc_info=error)  # the path may have names in it
    return on_ion_error(request, IonError(Reason.REASON_INTERNAL))


def _rule(error: IonError) -> Rule:
    known = _RULES.get(error.reason)
    if known:
        return known
    if error.code is grpc.StatusCode.INVALID_ARGUMENT:
        return Rule(HTTPStatus.BAD_REQUEST, INVALID, "invalid_value")
    return _TRY_LATER


def _headers(error: IonError, rule: Rule) -> dict[str, str]:
    """OpenAI's clients try again after any 5xx, unless they are told not to."""
    headers = headers_of(error)
    if rule.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not error.retryable:
        headers["x-should-retry"] = "false"
    return headers


def _about_header(error: ValidationException) -> tuple[str, str, str, str]:
    """The one member of a request that the framework reads itself."""
    found = error.extra[0] if isinstance(error.extra, list) and error.extra else {}
    return f"X-Request-Timeout: {found.get('message', 'is not valid')}", INVALID, "invalid_value", "X-Request-Timeout"


def _body(message: str, kind: str, code: str | None, param: str | None = None) -> ErrorBody:
    return ErrorBody(ErrorDetail(message, kind, param, code), tracing.current().request_id)


def _answer(status: int, body: ErrorBody, headers: Mapping[str, str] | None = None) -> Response[Any]:
    return Response(body, status_code=status, headers=dict(headers or {}), media_type=MediaType.JSON)
