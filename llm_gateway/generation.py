"""What the gateway asks of a model and what comes back, free of any wire format."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from chassis.errors import IonError, Violation
from ion.error.v1.reason_pb2 import Reason


class Role(StrEnum):
    USER = "user"
    MODEL = "model"


class FinishReason(StrEnum):
    STOP = "stop"
    MAX_TOKENS = "max_tokens"


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation; `text` is content, never an instruction."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Instructions and turns, kept apart. `turns` is oldest first, at least one, the last by the user."""

    system_instruction: str
    turns: tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    """How to generate; None and 0 leave the choice to the model. `response_json_schema` is a JSON object as text; ""
    means free text."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int = 0
    stop_sequences: tuple[str, ...] = ()
    response_json_schema: str = ""
    minimal_thinking: bool = False


@dataclass(frozen=True, slots=True)
class CacheControl:
    """What a call wants of the response cache. `bypass`: no stored reply, and none made for another call, may answer.
    `no_store`: the reply is neither stored nor shared. `max_age_seconds`: of a stored reply; None means any."""

    bypass: bool = False
    no_store: bool = False
    max_age_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One generation. `model` is never empty; `persona` labels it; `scope` partitions the cache. `max_input_tokens`: 0
    means the gateway's own limit."""

    model: str
    prompt: Prompt
    parameters: Parameters = field(default_factory=Parameters)
    persona: str = ""
    language: str = ""
    scope: str = ""
    cache: CacheControl = field(default_factory=CacheControl)
    may_hedge: bool = True
    max_input_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `cached_input_tokens` is a part of `input_tokens`; thinking is not part of the output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    thinking_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.thinking_tokens + other.thinking_tokens,
        )


NO_USAGE: Final = Usage()


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with text: `location` is where it was made, `offline` whether no model was asked."""

    text: str
    model: str
    location: str
    finish_reason: FinishReason
    usage: Usage
    offline: bool = False


class ModelError(IonError):
    """A model call failed, for one of the MODEL_* reasons of the contract."""


class ModelUnavailable(ModelError):
    """The model's service could not be reached or failed; another location or a later try may work."""

    def __init__(self, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(Reason.REASON_MODEL_UNAVAILABLE, retry_after_seconds=retry_after_seconds)


class ModelQuota(ModelError):
    """The model's service refused for lack of quota."""

    def __init__(self, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(Reason.REASON_MODEL_QUOTA, retry_after_seconds=retry_after_seconds)


class ModelNotFound(ModelError):
    """The model does not exist, or this project may not use it."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_MODEL_NOT_FOUND)


class ModelRejected(ModelError):
    """The model's service says that the request is malformed, or is not able to do what it asks."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(Reason.REASON_MODEL_REJECTED, message)


class ModelBlocked(ModelError):
    """Safety filters blocked the prompt or the reply."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_MODEL_BLOCKED)


class ModelEmpty(ModelError):
    """The model answered with no text."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_MODEL_EMPTY)


class ModelInterrupted(ModelError):
    """The reply broke off after its beginning."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_MODEL_INTERRUPTED)


class PromptTooLarge(IonError):
    """The prompt does not fit its limit of input tokens, even without its older turns."""

    def __init__(self, tokens: int, most: int) -> None:
        description = f"has {tokens} input tokens without its older turns, of at most {most}"
        super().__init__(
            Reason.REASON_PROMPT_TOO_LARGE, f"prompt: {description}", violations=[Violation("prompt", description)]
        )


class Overloaded(IonError):
    """More requests wait for a model call than the gateway takes on."""

    def __init__(self, *, retry_after_seconds: float) -> None:
        super().__init__(Reason.REASON_OVERLOADED, retry_after_seconds=retry_after_seconds)


class ModelCredentials(ModelError):
    """The credentials for the model's service are missing or refused."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_MODEL_CREDENTIALS)
