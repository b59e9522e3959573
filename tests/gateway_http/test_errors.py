"""Failures as HTTP answers."""

from __future__ import annotations

import logging

import pytest
from litestar import Litestar, get
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
}


def answer(error: Exception):
    @get("/")
    async def fail() -> None:
        raise error

    handlers = {IonError: errors.on_ion_error, Exception: errors.on_defect}
    with TestClient(Litestar([fail], exception_handlers=handlers, logging_config=None)) as client:
        return client.get("/")


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
    assert "Retry-After" not in answer(IonError(Reason.REASON_INTERNAL)).headers


def test_a_violation_names_its_field():
    detail = answer(InvalidField("session_id", "must be short")).json()["detail"]
    assert detail == [{"type": "invalid_field", "loc": ["body", "session_id"], "msg": "must be short"}]


def test_a_defect_is_logged_once_and_its_text_stays_inside(caplog):
    with caplog.at_level(logging.ERROR):
        response = answer(ValueError("secret of the house"))
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["reason"] == "INTERNAL"
    assert [record.message for record in caplog.records] == ["defect in /"]
