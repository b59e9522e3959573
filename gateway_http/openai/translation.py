"""A chat completion asked for, as the router's request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from chassis.errors import IonError
from gateway_http.openai.errors import BadParameter
from gateway_http.openai.models import model_not_found, persona_of
from gateway_http.openai.schemas import ChatCompletionRequest, JsonSchema, Message
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2

_INSTRUCTING: Final = ("system", "developer")
_ROLES: Final = {"user": llm_pb2.ROLE_USER, "assistant": llm_pb2.ROLE_MODEL}
_SCHEMA: Final = "response_format.json_schema.schema"
# The members that fields of the router's request come from.
_PARAMS: Final = {
    "contents": "messages",
    "instructions": "messages",
    "user_id": "user",
    "parameters.temperature": "temperature",
    "parameters.top_p": "top_p",
    "parameters.max_output_tokens": "max_completion_tokens",
    "parameters.stop_sequences": "stop",
    "parameters.response_json_schema": _SCHEMA,
}
_CONTENT: Final = re.compile(r"contents\[(\d+)\]")


def chat_request(asked: ChatCompletionRequest, cache_control: llm_pb2.CacheControl | None) -> router_pb2.ChatRequest:
    """Raises BadParameter, and IonError for a name that is not a model's. How much there may be of everything is the
    router's to check."""
    if asked.stream_options is not None and not asked.stream:
        raise BadParameter("stream_options", "`stream_options` is only taken with `stream`.")
    return router_pb2.ChatRequest(
        user_id=asked.user or asked.safety_identifier or "",
        persona=persona_of(asked.model),
        contents=_contents(asked.messages),
        instructions=_instructions(asked.messages),
        parameters=_parameters(asked),
        cache_control=cache_control,
        no_apology=True,
    )


def stream_request(request: router_pb2.ChatRequest) -> router_pb2.ChatStreamRequest:
    """Both have the same fields under the same numbers."""
    return router_pb2.ChatStreamRequest.FromString(request.SerializeToString())


def refused(asked: ChatCompletionRequest, error: IonError) -> Exception:
    """The router's refusal in terms of what was asked; any other failure as it is."""
    if error.reason == Reason.REASON_PERSONA_NOT_FOUND:
        return model_not_found()
    if error.reason != Reason.REASON_INVALID_FIELD or not error.violations:
        return error
    violation = error.violations[0]
    param = _param(asked.messages, violation.field)
    return BadParameter(param, f"`{param}` {violation.description}.") if param else error


def _param(messages: list[Message], field: str) -> str | None:
    turn = _CONTENT.match(field)
    if turn:
        return f"messages[{[index for index, _ in _turns(messages)][int(turn[1])]}].content"
    return _PARAMS.get(field)


def _instructions(messages: list[Message]) -> str:
    """What system and developer say, in order, wherever it stands in the conversation."""
    texts = [text_of(message, index) for index, message in enumerate(messages) if message.role in _INSTRUCTING]
    return "\n\n".join(text for text in texts if text)


def _contents(messages: list[Message]) -> list[llm_pb2.Content]:
    if messages[-1].role != "user":
        raise BadParameter(f"messages[{len(messages) - 1}].role", "The last message must be by the user.")
    return [content for _, content in _turns(messages)]


def _turns(messages: list[Message]) -> Iterator[tuple[int, llm_pb2.Content]]:
    """With their places in the conversation. An answer that was blocked, or cut before its first character, is left
    out: nothing was said."""
    for index, message in enumerate(messages):
        if message.role in _INSTRUCTING:
            continue
        text = text_of(message, index)
        if text.strip():
            yield index, llm_pb2.Content(role=_ROLES[message.role], text=text)
        elif message.role == "user":
            raise BadParameter(f"messages[{index}].content", "A message by the user must not be blank.")


def text_of(message: Message, index: int) -> str:
    """The content as one text: parts follow each other without anything between them."""
    if message.content is None and message.role != "assistant":
        raise BadParameter(f"messages[{index}].content", "`content` is required.", "missing_required_parameter")
    if isinstance(message.content, list):
        return "".join(part.text for part in message.content)
    return message.content or ""


def _parameters(asked: ChatCompletionRequest) -> llm_pb2.GenerationParameters:
    return llm_pb2.GenerationParameters(
        temperature=asked.temperature,
        top_p=asked.top_p,
        max_output_tokens=_max_tokens(asked),
        stop_sequences=[asked.stop] if isinstance(asked.stop, str) else asked.stop,
        response_json_schema=_schema(asked),
        minimal_thinking=asked.reasoning_effort == "minimal",
    )


def _max_tokens(asked: ChatCompletionRequest) -> int:
    """0 for no limit but the persona's."""
    older, newer = asked.max_tokens, asked.max_completion_tokens
    if older is not None and newer is not None and older != newer:
        raise BadParameter("max_tokens", "`max_tokens` and `max_completion_tokens` must not differ.")
    return newer or older or 0


def _schema(asked: ChatCompletionRequest) -> str:
    """Empty for free text."""
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return ""
    if wanted.json_schema is None:
        param = "response_format.json_schema"
        raise BadParameter(param, f"`{param}` is required.", "missing_required_parameter")
    return _schema_text(wanted.json_schema)


def _schema_text(given: JsonSchema) -> str:
    """The description, which OpenAI has beside the schema, belongs into it."""
    described: dict[str, Any] = {"description": given.description} if given.description else {}
    try:
        return msgspec.json.encode(described | given.schema).decode()
    except RecursionError as error:
        raise BadParameter(_SCHEMA, "The schema is nested too deeply.") from error
