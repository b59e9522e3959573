"""The JSON of the HTTP interface. Bounds of a message are the router's to check; here they are documented."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

_MESSAGE = Meta(
    description="1 to 1000 characters after trimming.",
    examples=["왜 이게 안 되는지 모르겠어요. 답답해요."],
    extra_json_schema={"extra": {"minLength": 1, "maxLength": 1000}},
)
Share = Annotated[float, Meta(ge=0, le=1)]


class ChatRequest(Struct):
    message: Annotated[str, _MESSAGE]
    user_id: Annotated[str | None, Meta(description="Who asks; at most 128 characters.")] = None
    session_id: Annotated[str | None, Meta(description="The conversation; at most 128 characters.")] = None
    persona: Annotated[str | None, Meta(description="The persona that is to answer, whatever the message.")] = None


class Rhythm(Struct):
    pace: Literal["burst", "flowing", "contemplative", "medium"]
    avg_length: Annotated[float, Meta(description="Mean words a sentence.")]
    punctuation_density: Share


class Tone(Struct):
    primary: str
    confidence: Share
    secondary: str | None


class Intent(Struct):
    primary: str
    confidence: Share


class Usage(Struct):
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    thinking_tokens: int


class Generation(Struct):
    model: str
    location: str
    cache: Literal["hit", "miss", "coalesced", "off"]
    finish_reason: str
    usage: Usage
    attempts: int
    offline: bool


class ChatRouting(Struct):
    secondary_persona: str | None
    reasoning: str
    scores: dict[str, float]
    pinned: bool


class Failure(Struct):
    reason: str
    retryable: bool


class Metadata(Struct, omit_defaults=True):
    """`llm` is there with a reply, `fallback` and `error` with an apology; the others wherever the router answered."""

    rhythm: Rhythm | UnsetType = UNSET
    tone: Tone | UnsetType = UNSET
    routing: ChatRouting | UnsetType = UNSET
    llm: Generation | UnsetType = UNSET
    fallback: bool = False
    error: Failure | UnsetType = UNSET


class ChatResponse(Struct):
    content: str
    persona_used: str
    resonance_key: str
    confidence: Share
    metadata: Metadata
    session_id: str | UnsetType = UNSET


class RouteRequest(Struct):
    """Exactly one of the two."""

    message: Annotated[str, _MESSAGE] | None = None
    resonance_key: Annotated[str, Meta(examples=["frustrated-burst-expressive"])] | None = None


class Analysis(Struct):
    tone: Tone
    pace: str
    intent: Intent
    rhythm: Rhythm
    topics: list[str]
    language: str


class Contribution(Struct):
    """What each signal added to a persona's score; the tie-breaker counts in the comparison alone."""

    tone: float
    pace: float
    intent: float
    tie_breaker: float


class RouteResponse(Struct):
    persona: str
    secondary_persona: str | None
    confidence: Share
    resonance_key: str
    scores: dict[str, float]
    contributions: dict[str, Contribution]
    reasoning: str
    defaulted_parts: list[str]
    analysis: Analysis


class Persona(Struct):
    name: str
    korean_name: str
    role: str
    symbol: str
    traits: list[str]
    strengths: list[str]
    preferred_tones: list[str]
    prompt_style: str
    topics: list[str]


class Personas(Struct):
    personas: list[Persona]


class RedisCache(Struct):
    enabled: bool
    connected: bool


class Health(Struct):
    status: Literal["healthy", "degraded"]
    version: str
    pipeline_ready: bool
    router: bool
    llm_gateway: bool
    redis_cache: RedisCache


class ServiceInfo(Struct):
    service: str
    version: str
    status: str
    docs: str
    health: str


class Alive(Struct):
    status: str


class ErrorItem(Struct):
    type: str
    loc: list[str | int]
    msg: str


class ValidationFailed(Struct):
    """422."""

    detail: list[ErrorItem]
    request_id: str


class Problem(Struct):
    """Any other error."""

    detail: str
    reason: str
    request_id: str
