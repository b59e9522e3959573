"""Reads a request's body strictly: what it has that is not known or not supported is refused by its name."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec
from litestar.dto import MsgspecDTO
from litestar.openapi.spec import Schema

from gateway_http.openai.errors import BadParameter
from gateway_http.openai.schemas import ChatCompletionRequest

# Members with values that ION has no use for, by the last part of their path; besides those that take null alone.
UNSUPPORTED: Final = frozenset(
    {
        *("n", "modalities", "tool_choice", "function_call", "tools", "functions", "tool_calls", "annotations"),
        *("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "verbosity"),
        *("reasoning_effort", "service_tier", "store", "include_obfuscation", "role", "type"),
    }
)
_NULL_ALONE: Final = "Expected `null`"
_decoder = msgspec.json.Decoder(ChatCompletionRequest)
_AT: Final = re.compile(r" - at `\$\.?(.*)`$")
_UNKNOWN: Final = re.compile(r"unknown field `(.+)`", re.DOTALL)
_MISSING: Final = re.compile(r"missing required field `(.+)`")
_INDEX: Final = re.compile(r"\[[^]]*\]")
_NAME_CHARACTERS: Final = 64


def read(body: bytes) -> ChatCompletionRequest:
    """Raises BadParameter."""
    try:
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadParameter(None, "The body must be valid JSON in UTF-8.", "invalid_json") from error


class StrictBody(MsgspecDTO[ChatCompletionRequest]):
    """Has the framework read the body so, and document just what is taken."""

    def decode_bytes(self, value: bytes) -> Any:
        return read(value)

    @classmethod
    def create_for_field_definition(cls, *_: Any, **__: Any) -> None:
        """There is nothing to make: the body is read as the type that it has."""

    @classmethod
    def create_openapi_schema(cls, *_: Any, **__: Any) -> Schema:
        return _ExactSchema()


class _ExactSchema(Schema):
    """The decoder's own schema, as the framework's leaves out bounds of 0 and members that are not known."""

    def to_schema(self) -> dict[str, Any]:
        (schema,), parts = msgspec.json.schema_components([ChatCompletionRequest], ref_template="{name}")
        whole: dict[str, Any] = _without_references(schema, parts)
        return whole


def _without_references(schema: Any, parts: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_without_references(item, parts) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _without_references(parts[schema["$ref"]], parts)
    return {key: _without_references(value, parts) for key, value in schema.items()}


def _refused(text: str) -> BadParameter:
    """The decoder says in English where the body is not what it has to be, and what it has to be instead."""
    at = _AT.search(text)
    path, what = (at[1], text[: at.start()]) if at else ("", text)
    if unknown := _UNKNOWN.search(what):
        return _by_name(path, unknown[1], "unknown_parameter", "is not known here")
    if missing := _MISSING.search(what):
        return _by_name(path, missing[1], "missing_required_parameter", "is required")
    if not path:
        return BadParameter(None, "The body must be a JSON object.", "invalid_type")
    if what.startswith(_NULL_ALONE) or _INDEX.sub("", path).rpartition(".")[2] in UNSUPPORTED:
        return BadParameter(path, f"`{path}` is not supported with this value.", "unsupported_parameter")
    return BadParameter(path, f"`{path}`: {what[0].lower()}{what[1:]}.", _code(what))


def _by_name(path: str, name: str, code: str, what: str) -> BadParameter:
    param = f"{path}.{name[:_NAME_CHARACTERS]}".removeprefix(".")
    return BadParameter(param, f"`{param}` {what}.", code)


def _code(what: str) -> str:
    return "invalid_type" if ", got " in what else "invalid_value"
