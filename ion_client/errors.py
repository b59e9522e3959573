"""What a call may fail with. Which failure is which class is said here, once for both transports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# Reasons of the client's own, beside those of the contract.
UNREACHABLE: Final = "UNREACHABLE"  # no connection was made: nothing was sent
CONNECTION_LOST: Final = "CONNECTION_LOST"  # the connection ended before the answer did
BAD_ANSWER: Final = "BAD_ANSWER"  # what came is not an answer of ION


@dataclass(frozen=True, slots=True)
class Violation:
    """One field out of its bounds: its path in the request, and what is allowed."""

    field: str
    description: str


class IonClientError(Exception):
    """A call failed. Its text is one sentence, and never has credentials or the caller's own text in it.

    `reason` is a name of the contract, such as "RATE_LIMITED", or one of the client's own: UNREACHABLE,
    CONNECTION_LOST, BAD_ANSWER. `retryable` says whether the same call may succeed later, `retry_after_seconds` from
    when on, None where nobody said. `request_id` is what the service logs the call under.
    """

    def __init__(
        self,
        message: str,
        reason: str = "",
        *,
        retryable: bool = False,
        retry_after_seconds: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable
        self.retry_after_seconds = retry_after_seconds
        self.request_id = request_id

    @property
    def refused(self) -> bool:
        """Whether the service has certainly not carried the call out: it said so, or was never reached."""
        return self.reason in _REFUSALS


class InvalidRequest(IonClientError):
    """The service does not take the request as it is; `violations` name the fields where it says which."""

    violations: tuple[Violation, ...] = ()


class Unauthenticated(IonClientError):
    """The credentials are missing or not valid."""


class NotFound(IonClientError):
    """There is no such persona, or the caller has no such session."""


class RateLimited(IonClientError):
    """The caller has used up what its tier allows."""


class Unavailable(IonClientError):
    """The service, or what it needs, could not be reached or has too much work."""


class DeadlineExceeded(IonClientError):
    """`timeout_seconds` passed before the answer was there."""


class Interrupted(IonClientError):
    """A stream broke off after its first text, or an export after its first turn: it is not begun anew. `text` is what
    had come of the reply, `reason` says why, `__cause__` is the failure itself."""

    text: str = ""


class Cancelled(IonClientError):
    """The call was cancelled from outside: by closing the client, or by a server that shuts down."""


class Internal(IonClientError):
    """Something went wrong inside the service, or its answer could not be read."""


@dataclass(frozen=True, slots=True)
class _Rule:
    kind: type[IonClientError]
    retryable: bool = False


_RULES: Final[dict[str, _Rule]] = {
    "INVALID_FIELD": _Rule(InvalidRequest),
    "MESSAGE_BLANK": _Rule(InvalidRequest),
    "MESSAGE_TOO_LONG": _Rule(InvalidRequest),
    "PROMPT_TOO_LARGE": _Rule(InvalidRequest),
    "UNAUTHENTICATED": _Rule(Unauthenticated),
    "PERMISSION_DENIED": _Rule(Unauthenticated),
    "PERSONA_NOT_FOUND": _Rule(NotFound),
    "SESSION_NOT_FOUND": _Rule(NotFound),
    "MODEL_NOT_FOUND": _Rule(NotFound),
    "RATE_LIMITED": _Rule(RateLimited, retryable=True),
    "OVERLOADED": _Rule(Unavailable, retryable=True),
    "DATABASE_UNAVAILABLE": _Rule(Unavailable, retryable=True),
    "ROUTER_UNAVAILABLE": _Rule(Unavailable, retryable=True),
    "LLM_GATEWAY_UNAVAILABLE": _Rule(Unavailable, retryable=True),
    "MODEL_UNAVAILABLE": _Rule(Unavailable, retryable=True),
    "MODEL_QUOTA": _Rule(Unavailable, retryable=True),
    "MODEL_EMPTY": _Rule(Unavailable, retryable=True),
    "MODEL_INTERRUPTED": _Rule(Unavailable, retryable=True),
    UNREACHABLE: _Rule(Unavailable, retryable=True),
    CONNECTION_LOST: _Rule(Unavailable, retryable=True),
    "DEADLINE_EXCEEDED": _Rule(DeadlineExceeded, retryable=True),
    "CANCELLED": _Rule(Cancelled, retryable=True),
    "INTERNAL": _Rule(Internal),
    BAD_ANSWER: _Rule(Internal),
}
# DATABASE_UNAVAILABLE: a chat answers without its history where the database is away, so it fails so only at the door.
_REFUSALS: Final = frozenset({"RATE_LIMITED", "OVERLOADED", "DATABASE_UNAVAILABLE", UNREACHABLE})


def is_known(reason: str) -> bool:
    return reason in _RULES


def failure(
    reason: str,
    message: str,
    *,
    otherwise: type[IonClientError] = Internal,
    retry_after_seconds: float | None = None,
    request_id: str = "",
    violations: Sequence[Violation] = (),
) -> IonClientError:
    """The error of that reason. One that is not known here, from a newer service or something between, is an
    `otherwise`, and retryable where it says when to come again."""
    rule = _RULES.get(reason) or _Rule(otherwise, retryable=retry_after_seconds is not None)
    error = rule.kind(
        message,
        reason,
        retryable=rule.retryable,
        retry_after_seconds=retry_after_seconds,
        request_id=request_id,
    )
    if isinstance(error, InvalidRequest):
        error.violations = tuple(violations)
    return error


def deadline_exceeded() -> IonClientError:
    return failure("DEADLINE_EXCEEDED", "The deadline passed.")


def bad_answer() -> IonClientError:
    return failure(BAD_ANSWER, "The answer could not be read.")


def client_closed() -> IonClientError:
    return failure("CANCELLED", "The client was closed.")


def interrupted(error: IonClientError, text: str) -> Interrupted:
    """The failure of a stream that had begun."""
    broken = Interrupted(
        f"The stream broke off: {error}",
        error.reason,
        retryable=error.retryable,
        retry_after_seconds=error.retry_after_seconds,
        request_id=error.request_id,
    )
    broken.text = text
    broken.__cause__ = error
    return broken
