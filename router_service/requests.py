"""What callers may ask: requests checked, and read into what the router works with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from google.protobuf import json_format, struct_pb2

from chassis.errors import InvalidField, IonError, Violation
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from router_service.personas import PersonaNotFound, PersonaTable

MAX_MESSAGE_CHARACTERS: Final = 1000
MAX_ID_CHARACTERS: Final = 128
MAX_CONTENTS: Final = 1000
MAX_CONTENT_CHARACTERS: Final = 100_000
MAX_ALL_CONTENTS_CHARACTERS: Final = 400_000
MAX_INSTRUCTIONS_CHARACTERS: Final = 32_000
# As llm.proto states them: the LLM gateway would refuse what is beyond, but only once an answer has begun.
MAX_OUTPUT_TOKENS: Final = 65_536
MAX_STOP_SEQUENCES: Final = 5
MAX_STOP_CHARACTERS: Final = 64
MAX_SCHEMA_CHARACTERS: Final = 8192

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_ROLES: Final = (llm_pb2.ROLE_UNSPECIFIED, llm_pb2.ROLE_USER, llm_pb2.ROLE_MODEL)

ChatAsked = router_pb2.ChatRequest | router_pb2.ChatStreamRequest


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be routed: a message, or where that is empty a key; and who answered last."""

    message: str
    key: str
    previous: str


def read_route(request: router_pb2.RouteRequest, personas: PersonaTable) -> Asked:
    """Raises IonError where there is nothing to route."""
    previous = known_name(personas, "previous_persona", request.previous_persona)
    given = request.WhichOneof("input")
    if given == "message":
        return Asked(checked_message(request.message), "", previous)
    if given == "resonance_key":
        check_id("resonance_key", request.resonance_key)
        return Asked("", request.resonance_key, previous)
    raise InvalidField("input", "must have a message or a resonance_key")


@dataclass(frozen=True, slots=True)
class AskedToChat:
    """What is to be answered. `message` is what is routed, without the white space around it, whether it came alone or
    as the last of `contents`; the personas are names or ""."""

    request: ChatAsked
    message: str
    pinned: str
    previous: str


def read_chat(request: ChatAsked, personas: PersonaTable) -> AskedToChat:
    """Raises IonError where there is nothing to answer."""
    message = _checked_contents(request) if request.contents else checked_message(request.message)
    check_id("user_id", request.user_id)
    check_id("session_id", request.session_id)
    if request.instructions:
        _check_text("instructions", request.instructions, MAX_INSTRUCTIONS_CHARACTERS)
    if request.HasField("parameters"):
        _check_parameters(request.parameters)
    if request.HasField("cache_control"):
        _check(request.cache_control.max_age_seconds >= 0, "cache_control.max_age_seconds", "must be at least 0")
    pinned = known_name(personas, "persona", request.persona)
    return AskedToChat(request, message, pinned, known_name(personas, "previous_persona", request.previous_persona))


def checked_message(text: str) -> str:
    """The message without the white space around it. Raises IonError where it is not one to answer."""
    message = text.strip()
    if not message:
        raise _bad_message(Reason.REASON_MESSAGE_BLANK, "must not be blank")
    if len(message) > MAX_MESSAGE_CHARACTERS:
        limit = f"must have at most {MAX_MESSAGE_CHARACTERS} characters, and has {len(message)}"
        raise _bad_message(Reason.REASON_MESSAGE_TOO_LONG, limit)
    _check_characters("message", message)
    return message


def _bad_message(reason: Reason.ValueType, description: str) -> IonError:
    return IonError(reason, f"message: {description}", violations=[Violation("message", description)])


def _checked_contents(request: ChatAsked) -> str:
    """The last turn's text, which is the one that is routed."""
    contents = request.contents
    for field in ("message", "session_id", "previous_persona"):
        _check(not getattr(request, field), field, "must be empty where contents are given")
    _check(len(contents) <= MAX_CONTENTS, "contents", f"must have at most {MAX_CONTENTS} entries")
    for number, content in enumerate(contents):
        _check_content(f"contents[{number}]", content)
    characters = sum(len(content.text) for content in contents)
    limit = f"must have at most {MAX_ALL_CONTENTS_CHARACTERS} characters together, and have {characters}"
    _check(characters <= MAX_ALL_CONTENTS_CHARACTERS, "contents", limit)
    last = f"contents[{len(contents) - 1}]"
    _check(contents[-1].role != llm_pb2.ROLE_MODEL, f"{last}.role", "must be ROLE_USER in the last entry")
    message = contents[-1].text.strip()
    _check(bool(message), f"{last}.text", "must not be blank in the last entry")
    return message


def _check_content(field: str, content: llm_pb2.Content) -> None:
    _check(content.role in _ROLES, f"{field}.role", "must be ROLE_USER or ROLE_MODEL")
    _check(bool(content.text), f"{field}.text", "must not be empty")
    _check_text(f"{field}.text", content.text, MAX_CONTENT_CHARACTERS)


def _check_text(field: str, text: str, most: int) -> None:
    _check(len(text) <= most, field, f"must have at most {most} characters, and has {len(text)}")
    _check_characters(field, text)


def _check_characters(field: str, text: str) -> None:
    if _CONTROL.search(text):
        raise InvalidField(field, "must not contain control characters other than tab and line breaks")


def _check_parameters(given: llm_pb2.GenerationParameters) -> None:
    if given.HasField("temperature"):
        _check(0 <= given.temperature <= 2, "parameters.temperature", "must be from 0 to 2")
    if given.HasField("top_p"):
        _check(0 < given.top_p <= 1, "parameters.top_p", "must be above 0 and at most 1")
    tokens = given.max_output_tokens
    limit = f"must be from 0 to {MAX_OUTPUT_TOKENS}"
    _check(0 <= tokens <= MAX_OUTPUT_TOKENS, "parameters.max_output_tokens", limit)
    _check_stop_sequences(given.stop_sequences)
    schema = given.response_json_schema
    if schema:
        description = f"must be a JSON object of at most {MAX_SCHEMA_CHARACTERS} characters"
        is_object = len(schema) <= MAX_SCHEMA_CHARACTERS and _is_json_object(schema)
        _check(is_object, "parameters.response_json_schema", description)


def _check_stop_sequences(sequences: Iterable[str]) -> None:
    lengths = [len(sequence) for sequence in sequences]
    allowed = len(lengths) <= MAX_STOP_SEQUENCES and all(1 <= length <= MAX_STOP_CHARACTERS for length in lengths)
    description = f"must have at most {MAX_STOP_SEQUENCES} entries of 1 to {MAX_STOP_CHARACTERS} characters"
    _check(allowed, "parameters.stop_sequences", description)


def _is_json_object(text: str) -> bool:
    """Read as the LLM gateway reads it: into a protobuf value, which bounds its depth too."""
    try:
        return bool(json_format.Parse(text, struct_pb2.Value()).HasField("struct_value"))
    except (json_format.ParseError, RecursionError):
        return False


def check_id(field: str, value: str) -> None:
    """Raises InvalidField where an id cannot be kept."""
    if len(value) > MAX_ID_CHARACTERS:
        raise InvalidField(field, f"must have at most {MAX_ID_CHARACTERS} characters")
    _check_characters(field, value)


def known_name(personas: PersonaTable, field: str, name: str) -> str:
    """The persona's own name, or "" where none is given. Raises IonError, which names the field."""
    try:
        return personas.get(name).name if name else ""
    except PersonaNotFound as error:
        violations = [Violation(field, violation.description) for violation in error.violations]
        raise IonError(error.reason, error.message, violations=violations) from error


def _check(holds: bool, field: str, description: str) -> None:
    if not holds:
        raise InvalidField(field, description)
