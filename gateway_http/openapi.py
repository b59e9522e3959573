"""The OpenAPI document: what the framework makes of the routes, and what it cannot know of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from gateway_http import event_stream, schemas
from gateway_http.front import is_public
from gateway_http.openai import schemas as openai
from gateway_http.openai.errors import is_openai

Json = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
_COMPONENTS: Final = (
    schemas.Problem,
    schemas.ValidationFailed,
    schemas.ErrorItem,
    schemas.RoutingEvent,
    schemas.DeltaEvent,
    schemas.DoneEvent,
    schemas.Timings,
    schemas.ErrorEvent,
)
_EVENTS: Final[dict[str, dict[str, type]]] = {
    "/chat": {
        "routing": schemas.RoutingEvent,
        "delta": schemas.DeltaEvent,
        "done": schemas.DoneEvent,
        "error": schemas.ErrorEvent,
    },
    "/v1/chat/completions": {"": openai.ChatCompletionChunk},
}
_SECURITY: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JSON Web Token."},
    "api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_TEXT: Final = {"schema": {"type": "string"}}
_NUMBER: Final = {"schema": {"type": "integer", "minimum": 0}}
_IDS: Final = {"X-Request-Id": _TEXT, "traceparent": _TEXT}
_LIMITS: Final = {"RateLimit-Limit": _TEXT, "RateLimit-Remaining": _TEXT, "RateLimit-Reset": _TEXT}
_CHAT_HEADERS: Final = {"X-Cache": _TEXT, "Server-Timing": _TEXT}
_HEADERS_OF_STATUS: Final[dict[str, Json]] = {
    "401": {"WWW-Authenticate": _TEXT},
    "405": {"Allow": _TEXT},
    "429": {"Retry-After": _NUMBER},
    "503": {"Retry-After": _NUMBER},
}
_FAILURES: Final = {
    "401": "No credentials, or bad ones",
    "404": "Not known",
    "413": "The body is too large",
    "415": "The body is not JSON by its media type",
    "422": "Invalid input",
    "429": "The caller's limit is reached",
    "503": "Try again later",
    "504": "No answer in time",
}
_TIMEOUT: Final = {"type": "number", "exclusiveMinimum": 0, "maximum": 300}
_CACHE_CONTROL: Final = {
    "name": "Cache-Control",
    "in": "header",
    "required": False,
    "description": "no-cache: no stored reply. no-store: the reply is not stored. max-age=N: none older than N s.",
    "schema": {"type": "string"},
}


def document(made: Json, auth: str) -> Json:
    """`made` by the framework, completed in place. `auth` is the setting."""
    components = made["components"]
    components["schemas"] = _components() | components["schemas"]
    if auth != "off":
        components["securitySchemes"] = _SECURITY
    for path, item in made["paths"].items():
        for method, operation in item.items():
            _complete(path, method, operation, guarded=auth != "off" and not is_public(path))
    return made


def _complete(path: str, method: str, operation: Json, *, guarded: bool) -> None:
    responses = operation["responses"]
    if not is_openai(path):
        responses.pop("400", None)  # the framework's own idea of invalid input
        for status in _failures(path, operation):
            responses[status] = _failure(status)
    if path in _EVENTS:
        responses["200"]["content"][event_stream.MEDIA_TYPE] = _events(_EVENTS[path])
        responses["200"].setdefault("headers", {}).update(_CHAT_HEADERS)
        operation["parameters"] = [*operation.get("parameters", ()), _CACHE_CONTROL]
    if guarded:
        operation["security"] = [{name: []} for name in _SECURITY]
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "X-Request-Timeout":
            parameter["schema"] = _TIMEOUT  # made out to allow null, and numbers below 0
    for status, response in responses.items():
        _complete_response(status, response, public=is_public(path), has_body=method != "head")


def _complete_response(status: str, response: Json, *, public: bool, has_body: bool) -> None:
    response.setdefault("headers", {}).update(_headers(status, public=public))
    if not has_body:
        response.pop("content", None)


def _failures(path: str, operation: Json) -> Iterable[str]:
    if path == "/readyz":
        yield "503"
    if is_public(path):
        return
    yield from ("401", "422", "429", "503", "504")
    if "requestBody" in operation:
        yield from ("413", "415")
    if "requestBody" in operation or "{" in path:
        yield "404"


def _failure(status: str) -> Json:
    body = schemas.ValidationFailed if status == "422" else schemas.Problem
    return {"description": _FAILURES[status], "content": {"application/json": {"schema": _ref(body)}}}


def _headers(status: str, *, public: bool) -> Json:
    limits = {} if public or status == "401" else _LIMITS
    return _IDS | limits | _HEADERS_OF_STATUS.get(status, {})


def _events(events: dict[str, type]) -> Json:
    names = ", ".join(f"`{name}`" for name in events if name)
    return {
        "schema": {"type": "string", "description": f"Server-sent events{': ' + names if names else ''}."},
        "x-events": {name or "message": _ref(data) for name, data in events.items()},
    }


def _ref(of: type) -> Json:
    return {"$ref": _REF.format(name=of.__name__)}


def _components() -> Json:
    """What no route returns as a whole."""
    _, found = msgspec.json.schema_components(_COMPONENTS, ref_template=_REF)
    _, chunk = msgspec.json.schema_components([openai.ChatCompletionChunk], ref_template=_REF)
    return chunk | {component.__name__: found[component.__name__] for component in _COMPONENTS}
