"""Failed gRPC calls as errors of this client."""

from __future__ import annotations

from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from ion_client.errors import (
    CONNECTION_LOST,
    UNREACHABLE,
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidRequest,
    IonClientError,
    NotFound,
    Unauthenticated,
    Unavailable,
    Violation,
    deadline_exceeded,
    failure,
)

_DOMAIN: Final = "ion"
_DETAILS_KEY: Final = "grpc-status-details-bin"
# How gRPC begins its words where it had no connection to send the call on. It has no better sign; where the words
# should change, calls that must not be done twice are no longer retried then, which is the safe side.
_NOTHING_SENT: Final = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "errors resolving ",
)
# For statuses without a reason of ION's: from gRPC itself, or from something between.
_KINDS: Final[dict[grpc.StatusCode, type[IonClientError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}


def from_rpc(error: Any) -> IonClientError:
    """`error` is what gRPC raised, sync or async."""
    code, status = error.code(), _status(error.trailing_metadata())
    if status is not None:
        return _from_status(code, status)
    if code is grpc.StatusCode.UNAVAILABLE:
        return _from_connection(str(error.details() or ""))
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return deadline_exceeded()
    return failure(code.name, _plain(code), otherwise=_KINDS.get(code, Internal))


def _from_connection(words: str) -> IonClientError:
    if words.startswith(_NOTHING_SENT):
        return failure(UNREACHABLE, "The service could not be reached.")
    return failure(CONNECTION_LOST, "The connection ended before the answer did.")


def _status(metadata: Any) -> status_pb2.Status | None:
    packed = next((value for key, value in metadata or () if key == _DETAILS_KEY), None)
    if packed is None:
        return None
    try:
        return status_pb2.Status.FromString(packed)
    except DecodeError:
        return None


def _from_status(code: grpc.StatusCode, status: status_pb2.Status) -> IonClientError:
    info = error_details_pb2.ErrorInfo()
    request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        for message in (info, request, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    ours = info.domain == _DOMAIN
    return failure(
        info.reason if ours else code.name,
        status.message if ours else _plain(code),
        otherwise=_KINDS.get(code, Unavailable if code is grpc.StatusCode.UNAVAILABLE else Internal),
        retry_after_seconds=retry.retry_delay.ToMilliseconds() / 1000 or None,
        violations=[Violation(item.field, item.description) for item in request.field_violations],
    )


def _plain(code: grpc.StatusCode) -> str:
    """For failures whose own words come from elsewhere, and may say anything."""
    return f"The call failed with {code.name}."
