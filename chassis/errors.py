"""The failures a caller may see, and their one mapping to and from gRPC status.

Domain code raises `IonError` (or a subclass that fills in the reason); the server's guard turns it into a
`google.rpc.Status`, and the one client file of each service turns that back with `from_rpc`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from ion.error.v1 import reason_pb2
from ion.error.v1.reason_pb2 import Reason

DOMAIN: Final = "ion"
STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
_PREFIX: Final = "REASON_"


@dataclass(frozen=True, slots=True)
class Rule:
    """How a reason travels: its status code, whether the same call may succeed later, and the text by default."""

    code: grpc.StatusCode
    retryable: bool
    message: str


_INVALID = grpc.StatusCode.INVALID_ARGUMENT
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
_NOT_FOUND = grpc.StatusCode.NOT_FOUND
_UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION

RULES: Final[dict[int, Rule]] = {
    Reason.REASON_INVALID_FIELD: Rule(_INVALID, False, "A field has a value out of its bounds."),
    Reason.REASON_MESSAGE_BLANK: Rule(_INVALID, False, "The message is empty."),
    Reason.REASON_MESSAGE_TOO_LONG: Rule(_INVALID, False, "The message is too long."),
    Reason.REASON_PERSONA_NOT_FOUND: Rule(_NOT_FOUND, False, "No persona has that name."),
    Reason.REASON_MODEL_NOT_FOUND: Rule(_NOT_FOUND, False, "The model does not exist or may not be used here."),
    Reason.REASON_MODEL_UNAVAILABLE: Rule(_UNAVAILABLE, True, "The model's service is not available."),
    Reason.REASON_MODEL_QUOTA: Rule(_EXHAUSTED, True, "The model's service has no quota left."),
    Reason.REASON_MODEL_REJECTED: Rule(_PRECONDITION, False, "The model's service rejected the request."),
    Reason.REASON_MODEL_BLOCKED: Rule(_PRECONDITION, False, "The model's safety filters blocked the reply."),
    Reason.REASON_MODEL_EMPTY: Rule(_UNAVAILABLE, True, "The model answered with no text."),
    Reason.REASON_MODEL_CREDENTIALS: Rule(_PRECONDITION, False, "The model's service refused the credentials."),
    Reason.REASON_DEADLINE_EXCEEDED: Rule(grpc.StatusCode.DEADLINE_EXCEEDED, True, "The deadline passed."),
    Reason.REASON_CANCELLED: Rule(grpc.StatusCode.CANCELLED, True, "The call was cancelled."),
    Reason.REASON_OVERLOADED: Rule(_EXHAUSTED, True, "The service has too much work."),
    Reason.REASON_ROUTER_UNAVAILABLE: Rule(_UNAVAILABLE, True, "The persona router could not be reached."),
    Reason.REASON_LLM_GATEWAY_UNAVAILABLE: Rule(_UNAVAILABLE, True, "The LLM gateway could not be reached."),
    Reason.REASON_MODEL_INTERRUPTED: Rule(_UNAVAILABLE, True, "The reply broke off."),
    Reason.REASON_PROMPT_TOO_LARGE: Rule(_INVALID, False, "The prompt is too large."),
    Reason.REASON_UNAUTHENTICATED: Rule(_UNAUTHENTICATED, False, "The credentials are missing or not valid."),
    Reason.REASON_PERMISSION_DENIED: Rule(grpc.StatusCode.PERMISSION_DENIED, False, 'This needs the tier "admin".'),
    Reason.REASON_RATE_LIMITED: Rule(_EXHAUSTED, True, "The limit of this caller is reached."),
    Reason.REASON_SESSION_NOT_FOUND: Rule(_NOT_FOUND, False, "There is no session of that id."),
    Reason.REASON_DATABASE_UNAVAILABLE: Rule(_UNAVAILABLE, True, "The database does not answer."),
    Reason.REASON_INTERNAL: Rule(grpc.StatusCode.INTERNAL, False, "Something went wrong inside ION."),
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is out of bounds: its path in the request, and what is allowed."""

    field: str
    description: str


class IonError(Exception):
    """A failure with a reason from the contract. `message` is one sentence that the caller may read."""

    def __init__(
        self,
        reason: Reason.ValueType,
        message: str | None = None,
        *,
        violations: Sequence[Violation] = (),
        retry_after_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.reason = reason
        self.message = message or RULES[reason].message
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers or {}  # for an HTTP answer; they do not travel over gRPC
        super().__init__(self.message)

    @property
    def code(self) -> grpc.StatusCode:
        return RULES[self.reason].code

    @property
    def retryable(self) -> bool:
        return RULES[self.reason].retryable

    @property
    def reason_name(self) -> str:
        """The reason without its prefix: "MESSAGE_BLANK"."""
        return reason_name(self.reason)


class InvalidField(IonError):
    """A request field out of its bounds; `description` says what is allowed."""

    def __init__(self, field: str, description: str) -> None:
        super().__init__(
            Reason.REASON_INVALID_FIELD, f"{field}: {description}", violations=[Violation(field, description)]
        )


class DeadlineExceeded(IonError):
    """The deadline passed before an answer was there."""

    def __init__(self) -> None:
        super().__init__(Reason.REASON_DEADLINE_EXCEEDED)


def reason_name(reason: Reason.ValueType) -> str:
    return Reason.Name(reason).removeprefix(_PREFIX)


def to_failure(error: IonError) -> reason_pb2.Failure:
    return reason_pb2.Failure(reason=error.reason, message=error.message, retryable=error.retryable)


def to_status(error: IonError) -> status_pb2.Status:
    """The error as it travels: ErrorInfo always, BadRequest for violations, QuotaFailure for limits, RetryInfo where a
    retry makes sense."""
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    _pack(status, error_details_pb2.ErrorInfo(reason=error.reason_name, domain=DOMAIN))
    if error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
        _pack(status, error_details_pb2.BadRequest(field_violations=fields))
    if error.reason == Reason.REASON_RATE_LIMITED:
        violation = error_details_pb2.QuotaFailure.Violation(subject="caller", description=error.message)
        _pack(status, error_details_pb2.QuotaFailure(violations=[violation]))
    if error.retryable and error.code in (_UNAVAILABLE, _EXHAUSTED):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int((error.retry_after_seconds or 1.0) * 1000))
        _pack(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_rpc(error: grpc.aio.AioRpcError, *, unreachable: Reason.ValueType) -> IonError:
    """The failure behind a failed call. A status without details that says UNAVAILABLE means that nobody answered:
    it becomes `unreachable`."""
    translated = _from_details(error)
    if translated:
        return translated
    if error.code() is _UNAVAILABLE:
        return IonError(unreachable)
    return IonError(_REASON_BY_CODE.get(error.code(), Reason.REASON_INTERNAL))


_REASON_BY_CODE: Final[dict[grpc.StatusCode, Reason.ValueType]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.REASON_DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED: Reason.REASON_CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.REASON_OVERLOADED,
}


class _SyncCall:
    """What `rpc_status.from_call` reads of a call, taken from an aio error."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    def trailing_metadata(self) -> list[tuple[str, str | bytes]]:
        return list(self._error.trailing_metadata())

    def code(self) -> grpc.StatusCode:
        return self._error.code()

    def details(self) -> str:
        return str(self._error.details())


def _from_details(error: grpc.aio.AioRpcError) -> IonError | None:
    """What the status details say; None where there are none, or none of ours."""
    if not error.trailing_metadata():
        return None
    try:
        status = rpc_status.from_call(_SyncCall(error))
        return _from_status(status) if status else None
    except (DecodeError, ValueError):  # not a status, or another one than the call's
        return None


def _from_status(status: status_pb2.Status) -> IonError | None:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, request, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    name = _PREFIX + info.reason
    if info.domain != DOMAIN or name not in Reason.keys():  # noqa: SIM118 - an enum wrapper has no __contains__
        return None
    return IonError(
        Reason.Value(name),
        status.message,
        violations=[Violation(field.field, field.description) for field in request.field_violations],
        retry_after_seconds=retry.retry_delay.ToMilliseconds() / 1000 or None,
    )


def _pack(status: status_pb2.Status, detail: object) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)
