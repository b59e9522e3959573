"""The JSON of the OpenAI-compatible interface. What a member may hold is said by its type alone: those that ION has no
use for take null, and the value that changes nothing."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

MAX_TEXT_CHARACTERS: Final = 100_000
MAX_OUTPUT_TOKENS: Final = 65_536

_UNSUPPORTED: Final = Meta(description="Not supported: null alone is taken.")
_ZERO: Final = Meta(ge=0, le=0, description="Not supported: 0 alone is taken.")
_STOP: Final = Meta(min_length=1, max_length=64)
Nothing = Annotated[None, _UNSUPPORTED]
NoItems = Annotated[list[Any], Meta(max_length=0, description="Not supported: none are taken.")] | None
Zero = Annotated[float, _ZERO] | None
Text = Annotated[str, Meta(max_length=MAX_TEXT_CHARACTERS)]


class TextPart(Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: Text
    prompt_cache_breakpoint: Nothing = None


class Message(Struct, forbid_unknown_fields=True):
    """One by system or developer is an instruction. The members after `name` are those that clients send back with an
    answer they got."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart] | None = None
    name: Nothing = None
    refusal: Nothing = None
    audio: Nothing = None
    function_call: Nothing = None
    tool_calls: NoItems = None
    annotations: NoItems = None


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class JsonSchema(Struct, forbid_unknown_fields=True):
    """The reply always fits the schema, whatever `strict` says."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True):
    """`json_object`, JSON of no particular form, is not supported."""

    type: Literal["text", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatCompletionRequest(Struct, forbid_unknown_fields=True):
    model: Annotated[str, Meta(description="ion-auto, or one of GET /v1/models.", examples=["ion-auto"])]
    messages: Annotated[list[Message], Meta(min_length=1, description="Oldest first; the last by the user.")]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    stop: Annotated[str, _STOP] | Annotated[list[Annotated[str, _STOP]], Meta(max_length=5)] | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Annotated[Literal["minimal"], Meta(description="Think as little as possible.")] | None = None
    user: Annotated[str, Meta(max_length=128, description="Who asks.")] | None = None
    safety_identifier: (
        Annotated[str, Meta(max_length=128, description="As `user`, where that is not given.")] | None
    ) = None
    # Without effect: nothing is stored, and there is one tier.
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: str | None = None
    # What changes nothing, and what is not supported.
    n: Literal[1] | None = None
    modalities: Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None = None
    tool_choice: Literal["none"] | None = None
    function_call: Literal["none"] | None = None
    tools: NoItems = None
    functions: NoItems = None
    parallel_tool_calls: bool | None = None
    frequency_penalty: Zero = None
    presence_penalty: Zero = None
    logit_bias: Annotated[dict[str, int], Meta(max_length=0)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    verbosity: Literal["medium"] | None = None
    audio: Nothing = None
    moderation: Nothing = None
    prediction: Nothing = None
    prompt_cache_options: Nothing = None
    prompt_cache_retention: Nothing = None
    seed: Nothing = None
    web_search_options: Nothing = None


class Ion(Struct, omit_defaults=True):
    """Who answered and why. `cache` is there once the reply is."""

    persona: str
    resonance_key: str
    confidence: float
    reasoning: str
    scores: dict[str, float]
    cache: Literal["hit", "miss", "coalesced", "off"] | UnsetType = UNSET


FinishReason = Literal["stop", "length", "content_filter"]


class PromptTokens(Struct):
    cached_tokens: int


class CompletionTokens(Struct):
    reasoning_tokens: int


class Usage(Struct):
    """`completion_tokens` has those of thinking in it."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens


class ReplyMessage(Struct, kw_only=True):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(Struct, kw_only=True):
    index: int = 0
    message: ReplyMessage
    logprobs: None = None
    finish_reason: FinishReason


class ChatCompletion(Struct, kw_only=True):
    """`ion` is not there where the reply was blocked."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    system_fingerprint: None = None
    ion: Ion | UnsetType = UNSET


class Delta(Struct):
    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET
    refusal: UnsetType | None = UNSET


class ChunkChoice(Struct, kw_only=True):
    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(Struct, kw_only=True):
    """`usage` is null in all chunks but the last, and absent without `include_usage`."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    system_fingerprint: None = None
    ion: Ion | UnsetType = UNSET


class Model(Struct, kw_only=True):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["ion"] = "ion"


class Models(Struct, kw_only=True):
    object: Literal["list"] = "list"
    data: list[Model]


class ErrorDetail(Struct):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct):
    error: ErrorDetail
    request_id: str
