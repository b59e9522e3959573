"""The wire messages of Vertex, and how its answers are made of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.cloud.aiplatform_v1.types import content, prediction_service

GenerateContentRequest: Final[Any] = prediction_service.GenerateContentRequest.pb()
GenerateContentResponse: Final[Any] = prediction_service.GenerateContentResponse.pb()
CountTokensRequest: Final[Any] = prediction_service.CountTokensRequest.pb()
CountTokensResponse: Final[Any] = prediction_service.CountTokensResponse.pb()
FinishReason: Final = content.Candidate.FinishReason
BlockedReason: Final = prediction_service.GenerateContentResponse.PromptFeedback.BlockedReason

# What https://cloud.google.com/vertex-ai/generative-ai/docs/labels allows, ASCII alone.
_LABEL_KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE: Final = re.compile(r"[a-z0-9_-]{0,63}")
_RESOURCE: Final = re.compile(r"projects/[^/]+/locations/(?P<location>[^/]+)/publishers/google/models/[^/]+")


@dataclass(slots=True)
class Counts:
    """Token counts to report; None is estimated from the texts."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    thinking_tokens: int = 0


def problem_of(resource: str, request: Any, location: str | None) -> str | None:
    """Why Vertex would refuse the request."""
    match = _RESOURCE.fullmatch(resource)
    if not match or (location and match["location"] != location):
        return "resource name"
    if not request.contents or any(turn.role not in ("user", "model") for turn in request.contents):
        return "contents"
    return None if _labels_are_good(getattr(request, "labels", {})) else "labels"


def _labels_are_good(labels: Mapping[str, str]) -> bool:
    return all(_LABEL_KEY.fullmatch(key) and _LABEL_VALUE.fullmatch(value) for key, value in labels.items())


def default_answer(request: Any) -> str:
    digest = hashlib.blake2b(_text_of(request.contents[-1]).encode(), digest_size=4).hexdigest()
    return f"Vertex reply as {request.labels.get('persona', 'nobody')} to {digest}: noted, and here is what I think."


def count_input(request: Any) -> int:
    contents = [*request.contents, request.system_instruction]
    return sum(_estimate(_text_of(turn)) for turn in contents)


def respond(request: Any, text: str, *, thought: str, counts: Counts, finish_reason: int) -> Any:
    response = GenerateContentResponse(model_version=request.model.rpartition("/")[2])
    candidate = response.candidates.add(finish_reason=finish_reason)
    candidate.content.role = "model"
    if thought:
        candidate.content.parts.add(text=thought, thought=True)
    if text:
        candidate.content.parts.add(text=text)
    _set_usage(response, request, text, counts)
    return response


def respond_nothing(request: Any, *, blocked_reason: int, counts: Counts) -> Any:
    response = GenerateContentResponse(model_version=request.model.rpartition("/")[2])
    if blocked_reason:
        response.prompt_feedback.block_reason = blocked_reason
    _set_usage(response, request, "", counts)
    return response


def leave_out_end(response: Any) -> None:
    """As a stream that ends cleanly, and too early, adds up."""
    response.ClearField("usage_metadata")
    for candidate in response.candidates:
        candidate.ClearField("finish_reason")


def in_pieces(response: Any, sizes: Sequence[int], piece_characters: int) -> list[Any]:
    """The response as a stream: its thought and its text in pieces, then the finish reason and the usage. The text is
    cut to `sizes`; what they do not cover, and the thought, every `piece_characters`."""
    parts = [part for candidate in response.candidates for part in candidate.content.parts]
    pieces = [
        _piece(response.model_version, text, thought=part.thought)
        for part in parts
        for text in _cut(part.text, () if part.thought else sizes, piece_characters)
    ]
    last = GenerateContentResponse()
    last.CopyFrom(response)
    for candidate in last.candidates:
        candidate.ClearField("content")
    return [*pieces, last]


def _cut(text: str, sizes: Sequence[int], piece_characters: int) -> Iterator[str]:
    following = iter(sizes)
    while text:
        size = next(following, piece_characters)
        yield text[:size]
        text = text[size:]


def _piece(model_version: str, text: str, *, thought: bool) -> Any:
    piece = GenerateContentResponse(model_version=model_version)
    content = piece.candidates.add().content
    content.role = "model"
    content.parts.add(text=text, thought=thought)
    return piece


def _set_usage(response: Any, request: Any, text: str, counts: Counts) -> None:
    usage = response.usage_metadata
    usage.prompt_token_count = count_input(request) if counts.input_tokens is None else counts.input_tokens
    usage.candidates_token_count = _estimate(text) if counts.output_tokens is None else counts.output_tokens
    usage.cached_content_token_count = counts.cached_tokens
    usage.thoughts_token_count = counts.thinking_tokens
    usage.total_token_count = usage.prompt_token_count + usage.candidates_token_count + counts.thinking_tokens


def _text_of(turn: Any) -> str:
    return "".join(part.text for part in turn.parts)


def _estimate(text: str) -> int:
    return -(-len(text) // 4)
