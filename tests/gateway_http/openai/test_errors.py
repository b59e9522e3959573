"""Failures as OpenAI's clients want them."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import msgspec
import pytest
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException

from chassis.errors import RULES, IonError
from gateway_http.openai import errors
from gateway_http.openai.errors import BadParameter, is_openai, problem, refusal
from ion.error.v1.reason_pb2 import Reason

INVALID, SERVER = "invalid_request_error", "server_error"
# Status, type, code, and whether the client is to try again: None leaves it to the client.
ANSWERS = {
    "UNAUTHENTICATED": (401, "authentication_error", "invalid_api_key", None),
    "PERMISSION_DENIED": (403, INVALID, "permission_denied", None),
    "RATE_LIMITED": (429, "rate_limit_error", "rate_limit_exceeded", True),
    "PERSONA_NOT_FOUND": (404, INVALID, "model_not_found", None),
    "INVALID_FIELD": (400, INVALID, "invalid_value", None),
    "MESSAGE_BLANK": (400, INVALID, "invalid_value", None),
    "MESSAGE_TOO_LONG": (400, INVALID, "invalid_value", None),
    "PROMPT_TOO_LARGE": (400, INVALID, "context_length_exceeded", None),
    "MODEL_REJECTED": (400, INVALID, "model_rejected", None),
    "DEADLINE_EXCEEDED": (504, SERVER, "deadline_exceeded", None),
    "INTERNAL": (500, SERVER, "internal", False),
    "OVERLOADED": (503, SERVER, "overloaded", True),
    "MODEL_UNAVAILABLE": (503, SERVER, "model_unavailable", True),
    "MODEL_QUOTA": (503, SERVER, "model_quota", True),
    "MODEL_EMPTY": (503, SERVER, "model_empty", True),
    "MODEL_INTERRUPTED": (503, SERVER, "model_interrupted", True),
    "ROUTER_UNAVAILABLE": (503, SERVER, "router_unavailable", True),
    "LLM_GATEWAY_UNAVAILABLE": (503, SERVER, "llm_gateway_unavailable", True),
    "DATABASE_UNAVAILABLE": (503, SERVER, "database_unavailable", True),
    "CANCELLED": (503, SERVER, "cancelled", None),
    "MODEL_NOT_FOUND": (503, SERVER, "model_not_found", False),
    "MODEL_CREDENTIALS": (503, SERVER, "model_credentials", False),
    "MODEL_BLOCKED": (503, SERVER, "model_blocked", False),
    "SESSION_NOT_FOUND": (503, SERVER, "session_not_found", False),
}


def test_every_reason_has_its_answer():
    assert set(ANSWERS) == {IonError(reason).reason_name for reason in RULES}


@pytest.mark.parametrize("reason", RULES)
def test_status_type_code_and_whether_to_try_again(reason):
    error = IonError(reason, retry_after_seconds=2.1)
    status, headers, body = refusal(error)
    expected_status, kind, code, again = ANSWERS[error.reason_name]
    assert (status, body.error.type, body.error.code) == (expected_status, kind, code)
    assert body.error.message == error.message
    assert headers.get("Retry-After") == ("3" if again else None)
    assert headers.get("x-should-retry") == ("false" if again is False else None)


def test_headers_of_the_door_go_on():
    error = IonError(Reason.REASON_RATE_LIMITED, retry_after_seconds=7, headers={"RateLimit-Remaining": "0"})
    assert refusal(error)[1] == {"RateLimit-Remaining": "0", "Retry-After": "7"}
    assert refusal(IonError(Reason.REASON_UNAUTHENTICATED))[1] == {"WWW-Authenticate": "Bearer"}


def test_the_shape():
    body = msgspec.json.decode(msgspec.json.encode(problem(415, "Send JSON.", "UNSUPPORTED_MEDIA_TYPE")))
    assert body["error"] == {"message": "Send JSON.", "type": INVALID, "param": None, "code": "unsupported_media_type"}
    assert "request_id" in body


def test_a_bad_parameter_names_itself():
    response = errors.on_bad_parameter(None, BadParameter("n", "One.", "unsupported_parameter"))
    assert response.status_code == 400
    assert response.content.error == errors.ErrorDetail("One.", INVALID, "n", "unsupported_parameter")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NotFoundException(), 404, "not_found"),
        (MethodNotAllowedException(), 405, "method_not_allowed"),
        (HTTPException(status_code=413), 413, "request_entity_too_large"),
    ],
)
def test_what_the_framework_refuses(error, status, code):
    response = errors.on_http_error(None, error)
    assert (response.status_code, response.content.error.code) == (status, code)
    assert response.content.error.type == INVALID


def test_a_bad_header_is_the_parameter():
    error = ValidationException(extra=[{"message": "Expected `float` <= 300.0", "key": "timeout_seconds"}])
    response = errors.on_http_error(None, error)
    assert (response.status_code, response.content.error.param) == (400, "X-Request-Timeout")
    assert "300" in response.content.error.message


def test_a_defect_is_logged_once_and_its_text_stays_inside(caplog):
    request = SimpleNamespace(scope={"path": "/v1/models/some-secret", "path_template": "/v1/models/{model}"})
    with caplog.at_level(logging.ERROR):
        response = errors.on_defect(request, ValueError("secret of the house"))
    assert response.status_code == 500
    assert "secret" not in response.content.error.message
    assert [record.message for record in caplog.records] == ["defect in /v1/models/{model}"]


@pytest.mark.parametrize(("path", "whether"), [("/v1/models", True), ("/v1/", True), ("/v1", False), ("/chat", False)])
def test_paths(path, whether):
    assert is_openai(path) is whether
