"""The JSON of the HTTP interface. Bounds of a message are the router's to check; here they are documented."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

_MESSAGE = Meta(
    description="1 to 1000 characters after trimming.",
    examples=["왜 이게 안 되는지 모르겠어요. 답답해요."],
    extra_json_schema={"extra": {"minLength": 1, "maxLength": 1000}},
)
_PREVIOUS = Meta(description="Who answered last in this conversation: preferred between near-equals.")
Share = Annotated[float, Meta(ge=0, le=1)]


class ChatRequest(Struct):
    message: Annotated[str, _MESSAGE]
    user_id: Annotated[str | None, Meta(description="Who asks; at most 128 characters.")] = None
    session_id: Annotated[str | None, Meta(description="The conversation; at most 128 characters.")] = None
    persona: Annotated[str | None, Meta(description="The persona that is to answer, whatever the message.")] = None
    previous_persona: Annotated[str | None, _PREVIOUS] = None


class Rhythm(Struct):
    pace: Literal["burst", "flowing", "contemplative", "medium"]
    avg_length: Annotated[float, Meta(description="Mean words a sentence.")]
    punctuation_density: Share
    confidence: Annotated[float, Meta(ge=0, le=1, description="How far the pace is from turning into another.")]


class Tone(Struct):
    """`abstained`: no tone was likely enough, and calm stands in."""

    primary: str
    confidence: Share
    secondary: str | None
    secondary_confidence: Share
    abstained: bool


class Evidence(Struct):
    """A word of the message and how much it spoke for the tone, in units of the tone's logit."""

    text: str
    weight: float


ReadBy = Annotated[
    Literal["reader", "model"] | None, Meta(description="Who read tone and intent; null for a resonance key.")
]


class Intent(Struct):
    primary: str
    confidence: Share


class Usage(Struct):
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    thinking_tokens: int


_HEDGES = Meta(description="Those of the attempts that were sent because the one before was late.")
_QUEUED = Meta(description="Milliseconds that the request waited for its turn at the model.")
_COST = Meta(description="By list prices, lost attempts included; for a hit, what was saved. Null where not known.")


class Generation(Struct):
    model: str
    location: str
    cache: Literal["hit", "miss", "coalesced", "off"]
    finish_reason: str
    usage: Usage
    attempts: int
    offline: bool
    hedges: Annotated[int, _HEDGES]
    queued_ms: Annotated[float, _QUEUED]
    estimated_cost_usd: Annotated[float | None, _COST]


_MARGIN = Meta(
    description="How far ahead of the next persona in the comparison, tie-breaker and session bonus included."
)


class ChatRouting(Struct):
    secondary_persona: str | None
    reasoning: str
    scores: dict[str, float]
    pinned: bool
    margin: Annotated[float, _MARGIN]


class Failure(Struct):
    reason: str
    retryable: bool


_HISTORY = Meta(description="What became of the turn in its session; absent without one.")
History = Literal["stored", "unavailable", "skipped"]


class Metadata(Struct, omit_defaults=True):
    """`llm` is there with a reply, `fallback` and `error` with an apology; the others wherever the router answered."""

    rhythm: Rhythm | UnsetType = UNSET
    tone: Tone | UnsetType = UNSET
    intent: Intent | UnsetType = UNSET
    routing: ChatRouting | UnsetType = UNSET
    read_by: ReadBy | UnsetType = UNSET
    llm: Generation | UnsetType = UNSET
    history: Annotated[History | UnsetType, _HISTORY] = UNSET
    fallback: bool = False
    error: Failure | UnsetType = UNSET


class ChatResponse(Struct):
    content: str
    persona_used: str
    resonance_key: str
    confidence: Share
    metadata: Metadata
    session_id: str | UnsetType = UNSET


class RoutingEvent(Struct):
    """Event `routing`: who is to answer and why."""

    persona_used: str
    resonance_key: str
    confidence: Share
    metadata: Metadata
    session_id: str | UnsetType = UNSET


class DeltaEvent(Struct):
    """Event `delta`: the next text of the reply."""

    text: str


class Timings(Struct):
    """Milliseconds; `history_ms` is 0 without a session."""

    analysis_ms: float
    routing_ms: float
    llm_ms: float
    history_ms: float


class DoneEvent(Struct):
    """Event `done`: the reply is complete. With `fallback` it is an apology, of the persona named here."""

    persona_used: str
    resonance_key: str
    confidence: Share
    metadata: Metadata
    timings: Timings
    session_id: str | UnsetType = UNSET


class ErrorEvent(Struct):
    """Event `error`, in place of `done`: the reply is not complete."""

    detail: str
    reason: str
    retryable: bool
    request_id: str
    retry_after_seconds: float | UnsetType = UNSET


class RouteRequest(Struct):
    """Exactly one of message and resonance_key."""

    message: Annotated[str, _MESSAGE] | None = None
    resonance_key: Annotated[str, Meta(examples=["frustrated-burst-expressive"])] | None = None
    previous_persona: Annotated[str | None, _PREVIOUS] = None


class Analysis(Struct):
    tone: Tone
    pace: str
    intent: Intent
    rhythm: Rhythm
    topics: list[str]
    language: str
    topic_probabilities: dict[str, float]
    evidence: list[Evidence]
    read_by: ReadBy


class Contribution(Struct):
    """What each signal added to a persona's score; tie-breaker and session bonus count in the comparison alone."""

    tone: float
    pace: float
    intent: float
    tie_breaker: float
    session_bonus: float


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
    margin: Annotated[float, _MARGIN]


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


class DatabaseConnection(Struct):
    connected: bool


class PersonaFiles(Struct):
    """`problem` says why the newest persona files are not in use; those before them are."""

    count: int
    problem: str


class Health(Struct):
    status: Literal["healthy", "degraded"]
    version: str
    pipeline_ready: bool
    router: bool
    llm_gateway: bool
    redis_cache: RedisCache
    personas: PersonaFiles
    database: DatabaseConnection | UnsetType = UNSET


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
