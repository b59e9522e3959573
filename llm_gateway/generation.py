"""What the gateway asks of a model and what comes back, free of any wire format."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from chassis.errors import IonError
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
class GenerationRequest:
    """One generation. `model` is never empty; `persona` labels it; `scope` partitions the cache."""

    model: str
    prompt: Prompt
    parameters: Parameters = field(default_factory=Parameters)
    persona: str = ""
    language: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens. `cached_input_tokens` is a part of `input_tokens`; thinking is not part of the output."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    thinking_tokens: int = 0


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


class ModelCredentials(ModelError):
    """The credentials for the model's service are missing or refused."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_MODEL_CREDENTIALS)
