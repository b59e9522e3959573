"""What the routes make of a router that behaves as none of today does."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import Litestar
from litestar.datastructures import State
from litestar.testing import TestClient

from chassis.deadline import Deadline
from gateway_http.openai.routes import ROUTES
from ion.error.v1 import reason_pb2
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2

BODY = {"model": "ion-lua", "messages": [{"role": "user", "content": "hi"}]}


class ScriptedRouter:
    """Answers so, or raises it; remembers how long it was given."""

    def __init__(self, answer: router_pb2.ChatResponse | Exception) -> None:
        self.answer = answer
        self.seconds = 0.0

    async def chat(self, _request: Any, deadline: Deadline) -> router_pb2.ChatResponse:
        self.seconds = deadline.remaining_seconds()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def post(router: ScriptedRouter, **headers: str) -> Any:
    state = State({"router": router, "request_timeout_seconds": 30.0})
    with TestClient(Litestar(ROUTES, state=state, logging_config=None)) as client:
        return client.post("/v1/chat/completions", json=BODY, headers=headers)


def test_the_apology_of_an_older_router_is_a_failure():
    failure = reason_pb2.Failure(reason=Reason.REASON_MODEL_UNAVAILABLE)
    response = post(ScriptedRouter(router_pb2.ChatResponse(content="Sorry.", fallback=True, failure=failure)))
    assert (response.status_code, response.json()["error"]["code"]) == (503, "model_unavailable")
    assert response.headers["Retry-After"] == "1"


def test_a_defect_is_told_in_the_same_shape_and_not_tried_again():
    response = post(ScriptedRouter(ValueError("secret of the house")))
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal")
    assert response.headers["x-should-retry"] == "false"
    assert "secret" not in response.text


@pytest.mark.parametrize(("headers", "least", "most"), [({}, 25, 29.9), ({"X-Request-Timeout": "5"}, 4, 4.9)])
def test_the_router_has_the_callers_time_less_a_margin(headers, least, most):
    router = ScriptedRouter(router_pb2.ChatResponse(content="hi"))
    response = post(router, **headers)
    assert response.status_code == 200
    assert least < router.seconds <= most


def test_an_answer_says_how_it_came_about():
    router = ScriptedRouter(router_pb2.ChatResponse(content="hi", timings=router_pb2.Timings(llm_micros=1500)))
    headers = post(router).headers
    assert headers["X-Cache"] == "off"
    assert "llm;dur=1.5" in headers["Server-Timing"]
