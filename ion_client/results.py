"""What calls give: the same objects over both transports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

History = Literal["stored", "unavailable", "skipped"]
CacheUse = Literal["hit", "miss", "coalesced", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheControl:
    """What a call wants of the response cache. `bypass`: no stored reply may answer. `no_store`: the reply is not kept.
    `max_age_seconds`: the greatest age of a stored reply that may answer, at least 0."""

    bypass: bool = False
    no_store: bool = False
    max_age_seconds: int | None = None

    def __post_init__(self) -> None:
        if self.max_age_seconds is not None and self.max_age_seconds < 0:
            raise ValueError(f"max_age_seconds must be at least 0, not {self.max_age_seconds}")


@dataclass(frozen=True, slots=True)
class Tone:
    """`abstained`: no tone was likely enough, and calm stands in. Confidences are 0 to 1."""

    primary: str
    confidence: float
    secondary: str | None
    secondary_confidence: float
    abstained: bool


@dataclass(frozen=True, slots=True)
class Intent:
    """What the sender wants, and how likely that is, 0 to 1."""

    primary: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How the message flows. `avg_length`: mean words a sentence. `punctuation_density`: share of characters, 0 to
    1."""

    pace: str
    avg_length: float
    punctuation_density: float
    confidence: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """A word of the message and how much it spoke for the tone, above 0."""

    text: str
    weight: float


@dataclass(frozen=True, slots=True)
class Analysis:
    """What was read from a message. `read_by` is "reader" or "model"; None for a resonance key.

    The second half only `route` gives: topics by probability, the language ("ko", "en"; "" for a key), and the words
    behind the tone, strongest first.
    """

    tone: Tone
    intent: Intent
    rhythm: Rhythm
    read_by: str | None
    topics: Mapping[str, float] = field(default_factory=dict)
    language: str = ""
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Contribution:
    """What each signal added to a persona's score; `tie_breaker` and `session_bonus` count in the comparison alone."""

    tone: float
    pace: float
    intent: float
    tie_breaker: float
    session_bonus: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Who is to answer and why. `confidence` is that persona's score, `scores` has everybody's, each 0 to 1. `margin`
    is how far it is ahead of the next one in the comparison. `pinned`: the caller had named the persona.

    For an apology: who apologises, confidence 0, beside the scores as they were; none where not even the router
    answered.
    """

    persona: str
    secondary_persona: str | None
    confidence: float
    resonance_key: str
    reasoning: str
    scores: Mapping[str, float]
    pinned: bool
    margin: float


@dataclass(frozen=True, slots=True)
class Routing:
    """What `route` gives: the choice, what it rests on, and what each score is made of. `defaulted_parts` names the
    parts of a given key that were unknown and fell back."""

    choice: Choice
    analysis: Analysis
    contributions: Mapping[str, Contribution]
    defaulted_parts: tuple[str, ...]

    @property
    def persona(self) -> str:
        return self.choice.persona


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as billed. `cached_input_tokens` are part of `input_tokens`; the others never overlap."""

    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    thinking_tokens: int


@dataclass(frozen=True, slots=True)
class Generation:
    """How a reply came about. `attempts`: model calls made for it, 0 for a hit. `estimated_cost_usd`: by list prices;
    for a hit, what was saved; None where that is not known. `offline`: no model was asked."""

    model: str
    location: str
    cache: CacheUse
    finish_reason: str
    usage: Usage
    attempts: int
    hedges: int
    queued_ms: float
    estimated_cost_usd: float | None
    offline: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a reply is an apology: a reason of the contract, and whether the same message may be answered later."""

    reason: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Timings:
    """Time spent inside the service, in milliseconds."""

    analysis_ms: float = 0.0
    routing_ms: float = 0.0
    llm_ms: float = 0.0
    history_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. With `fallback` the text is an apology, `failure` says why, and there is no `generation`.

    `history` says what became of the turn in its session; None without one. `analysis` is None only where not even the
    router answered. `request_id` is what the service logs the call under.
    """

    text: str
    choice: Choice
    analysis: Analysis | None
    generation: Generation | None = None
    fallback: bool = False
    failure: Failure | None = None
    session_id: str | None = None
    history: History | None = None
    timings: Timings = field(default_factory=Timings, compare=False)
    request_id: str = field(default="", compare=False)

    @property
    def persona(self) -> str:
        return self.choice.persona


@dataclass(frozen=True, slots=True)
class Routed:
    """The first event of a stream. It comes again, before the first text, where the stream was begun anew. `analysis`
    is None only where not even the router answered."""

    choice: Choice
    analysis: Analysis | None


@dataclass(frozen=True, slots=True)
class Text:
    """The next piece of the reply, at least 1 character."""

    text: str


@dataclass(frozen=True, slots=True)
class Done:
    """The last event of a stream: the whole reply."""

    reply: Reply


Event = Routed | Text | Done


@dataclass(frozen=True, slots=True)
class Persona:
    """A persona as people see it."""

    name: str
    korean_name: str
    role: str
    symbol: str
    traits: tuple[str, ...]
    strengths: tuple[str, ...]
    preferred_tones: tuple[str, ...]
    prompt_style: str
    topics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A conversation that is kept. `persona` answered last, `title` is the beginning of its first message. `summary`,
    what its older turns said, only `session` gives; "" while it is short."""

    session_id: str
    created_at: datetime
    updated_at: datetime
    turns: int
    persona: str
    title: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said and what was answered, by whom. `turn_id` grows within the session, with gaps."""

    turn_id: int
    created_at: datetime
    message: str
    reply: str
    persona: str
    resonance_key: str
    confidence: float
    model: str
