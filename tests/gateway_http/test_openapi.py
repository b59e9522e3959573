"""The OpenAPI document: what the framework does not know."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from grpc.aio import insecure_channel
from litestar.serialization import decode_json

from chassis.caller import OpenDoor
from gateway_http.app import build_app
from gateway_http.front import is_public
from gateway_http.health import HealthMonitor
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings


@cache
def document(auth: str) -> dict[str, Any]:
    channel = insecure_channel("127.0.0.1:1")
    settings = HttpSettings(auth=auth, jwt_issuer="i", jwt_audience="a", jwt_jwks=__file__)
    _, state = build_app(settings, RouterClient(channel), HealthMonitor(channel, channel), OpenDoor())
    return decode_json(state.openapi())


@pytest.fixture
async def operations() -> dict[tuple[str, str], Any]:
    return {
        (method, path): operation
        for path, item in document("off")["paths"].items()
        for method, operation in item.items()
    }


async def test_streams_are_documented_beside_json(operations):
    content = operations["post", "/chat"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "text/event-stream"}
    assert set(content["text/event-stream"]["x-events"]) == {"routing", "delta", "done", "error"}
    export = operations["get", "/sessions/{session_id}/export"]
    assert set(export["responses"]["200"]["content"]) == {"application/x-ndjson"}


async def test_every_refusal_is_documented(operations):
    for (_, path), operation in operations.items():
        statuses = set(operation["responses"])
        assert is_public(path) or statuses >= {"401", "429", "503"}, path
        assert "requestBody" not in operation or statuses >= {"413", "415"}, path
    assert "422" in operations["post", "/chat"]["responses"]
    assert "404" in operations["delete", "/sessions/{session_id}"]["responses"]


async def test_headers_are_documented(operations):
    responses = operations["post", "/chat"]["responses"]
    assert {"X-Request-Id", "traceparent", "X-Cache", "Server-Timing", "RateLimit-Limit"} <= set(
        responses["200"]["headers"]
    )
    assert "Retry-After" in responses["429"]["headers"]
    assert "WWW-Authenticate" in responses["401"]["headers"]
    asked = {parameter["name"] for parameter in operations["post", "/chat"]["parameters"]}
    assert asked == {"X-Request-Timeout", "Cache-Control"}


@pytest.mark.parametrize(("auth", "secured"), [("off", False), ("jwt", True)])
async def test_credentials_are_asked_for_where_they_are_needed(auth, secured):
    paths = document(auth)["paths"]
    assert ("security" in paths["/chat"]["post"]) == secured
    assert "security" not in paths["/health"]["get"]
    assert ("securitySchemes" in document(auth)["components"]) == secured
