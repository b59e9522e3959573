"""Failures as HTTP answers."""

from __future__ import annotations

import logging

import pytest
from litestar import HttpMethod, Litestar, route
from litestar.testing import TestClient

from chassis.errors import RULES, InvalidField, IonError
from gateway_http import errors
from ion.error.v1.reason_pb2 import Reason

STATUSES = {
    "MODEL_INTERRUPTED": 503,
    "PROMPT_TOO_LARGE": 422,
    "INVALID_FIELD": 422,
    "MESSAGE_BLANK": 422,
    "MESSAGE_TOO_LONG": 422,
    "PERSONA_NOT_FOUND": 404,
    "MODEL_NOT_FOUND": 404,
    "MODEL_UNAVAILABLE": 503,
    "MODEL_QUOTA": 503,
    "MODEL_REJECTED": 502,
    "MODEL_BLOCKED": 502,
    "MODEL_EMPTY": 503,
    "MODEL_CREDENTIALS": 502,
    "DEADLINE_EXCEEDED": 504,
    "CANCELLED": 499,
    "OVERLOADED": 503,
    "ROUTER_UNAVAILABLE": 503,
    "LLM_GATEWAY_UNAVAILABLE": 503,
    "INTERNAL": 500,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "RATE_LIMITED": 429,
    "SESSION_NOT_FOUND": 404,
    "DATABASE_UNAVAILABLE": 503,
}


def answer(error: Exception, method: str = "GET"):
    @route("/", http_method=[HttpMethod.GET, HttpMethod.POST], status_code=200)
    async def fail() -> None:
        raise error

    handlers = {IonError: errors.on_ion_error, Exception: errors.on_defect}
    with TestClient(Litestar([fail], exception_handlers=handlers, logging_config=None)) as client:
        return client.request(method, "/")


@pytest.mark.parametrize("reason", RULES)
def test_every_reason_has_its_status_and_says_itself(reason):
    error = IonError(reason)
    response = answer(error)
    assert response.status_code == STATUSES[error.reason_name]
    body = response.json()
    assert "request_id" in body
    if response.status_code == 422:
        assert body["detail"][0]["type"] == error.reason_name.lower()
    else:
        assert (body["reason"], body["detail"]) == (error.reason_name, error.message)


def test_retry_after_is_whole_seconds_rounded_up():
    assert answer(IonError(Reason.REASON_OVERLOADED, retry_after_seconds=2.1)).headers["Retry-After"] == "3"
    assert answer(IonError(Reason.REASON_OVERLOADED)).headers["Retry-After"] == "1"
    assert answer(IonError(Reason.REASON_RATE_LIMITED, retry_after_seconds=0.2)).headers["Retry-After"] == "1"
    assert "Retry-After" not in answer(IonError(Reason.REASON_INTERNAL)).headers


def test_an_error_brings_its_headers():
    error = IonError(Reason.REASON_RATE_LIMITED, headers={"RateLimit-Remaining": "0"})
    assert answer(error).headers["RateLimit-Remaining"] == "0"


def test_whoever_is_not_known_hears_what_to_show():
    assert answer(IonError(Reason.REASON_UNAUTHENTICATED)).headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("field", "place"),
    [
        ("session_id", ["path", "session_id"]),
        ("user_id", ["header", "X-User-Id"]),
        ("page_size", ["query", "limit"]),
        ("page_token", ["query", "cursor"]),
        ("other.part", ["body", "other", "part"]),
    ],
)
def test_a_violation_names_where_the_field_is(field, place):
    error = InvalidField(field, "must be short")
    assert answer(error).json()["detail"] == [{"type": "invalid_field", "loc": place, "msg": "must be short"}]
    in_body = ["body", *field.split(".")]
    assert answer(error, "POST").json()["detail"][0]["loc"] == in_body


def test_a_defect_is_logged_once_and_its_text_stays_inside(caplog):
    with caplog.at_level(logging.ERROR):
        response = answer(ValueError("secret of the house"))
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["reason"] == "INTERNAL"
    assert [record.message for record in caplog.records] == ["defect in /"]
