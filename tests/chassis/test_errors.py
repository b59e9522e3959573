"""Errors travel as google.rpc.Status and come back as they were."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from chassis.channel import invoke
from chassis.deadline import Deadline
from chassis.errors import RULES, STATUS_DETAILS_KEY, InvalidField, IonError, Violation, from_rpc, to_failure, to_status
from chassis.server import CallGuard
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.conftest import Serve

REASONS = [reason for reason in Reason.values() if reason != Reason.REASON_UNSPECIFIED]
UNREACHABLE = Reason.REASON_ROUTER_UNAVAILABLE

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
errors = st.builds(
    IonError,
    st.sampled_from(REASONS),
    texts,
    violations=st.lists(st.builds(Violation, texts, texts), max_size=3),
    retry_after_seconds=st.none() | st.integers(1, 10_000).map(lambda milliseconds: milliseconds / 1000),
)


def received(code: grpc.StatusCode, trailers=(), details="words from below") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details)


def test_every_reason_has_a_rule():
    assert set(RULES) == set(REASONS)


@given(errors)
def test_status_and_back(error):
    status = to_status(error)
    trailers = [(STATUS_DETAILS_KEY, status.SerializeToString())]
    back = from_rpc(received(error.code, trailers, error.message), unreachable=UNREACHABLE)
    assert (back.reason, back.message, back.violations) == (error.reason, error.message, error.violations)
    if error.retryable and error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        assert back.retry_after_seconds == (error.retry_after_seconds or 1.0)
    else:
        assert back.retry_after_seconds is None


@pytest.mark.parametrize("reason", REASONS)
async def test_over_a_channel_every_reason_arrives(serve: Serve, reason):
    async def handle(request, context):
        raise IonError(reason)

    echo = await serve(unary=handle, interceptors=[CallGuard()])
    with pytest.raises(IonError) as caught:
        await invoke(echo.unary, "Unary", b"", Deadline.after(5), unreachable=UNREACHABLE)
    assert caught.value.reason == reason
    assert caught.value.message == RULES[reason].message


async def test_a_defect_is_internal_and_its_text_stays_inside(serve: Serve, caplog):
    async def handle(request, context):
        raise ValueError("secret of the house")

    echo = await serve(unary=handle, interceptors=[CallGuard()])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo.unary(b"")
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value)
    assert from_rpc(caught.value, unreachable=UNREACHABLE).reason == Reason.REASON_INTERNAL
    assert [record.levelname for record in caplog.records if "defect" in record.message] == ["ERROR"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.UNAVAILABLE, UNREACHABLE),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Reason.REASON_DEADLINE_EXCEEDED),
        (grpc.StatusCode.CANCELLED, Reason.REASON_CANCELLED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Reason.REASON_OVERLOADED),
        (grpc.StatusCode.UNKNOWN, Reason.REASON_INTERNAL),
        (grpc.StatusCode.UNIMPLEMENTED, Reason.REASON_INTERNAL),
    ],
)
def test_statuses_without_details(code, reason):
    error = from_rpc(received(code), unreachable=UNREACHABLE)
    assert error.reason == reason
    assert "below" not in error.message


def foreign(domain: str, reason: str) -> bytes:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(domain=domain, reason=reason))
    return status_pb2.Status(code=14, message="words from below", details=[detail]).SerializeToString()


@pytest.mark.parametrize("packed", [foreign("else.where", "INTERNAL"), foreign("ion", "NEWER_THAN_THIS")])
def test_foreign_details_are_not_believed(packed):
    error = received(grpc.StatusCode.UNAVAILABLE, [(STATUS_DETAILS_KEY, packed)])
    assert from_rpc(error, unreachable=UNREACHABLE).reason == UNREACHABLE


@given(st.binary(max_size=60))
def test_garbage_in_the_details_never_raises(packed):
    error = received(grpc.StatusCode.UNAVAILABLE, [(STATUS_DETAILS_KEY, packed)])
    assert from_rpc(error, unreachable=UNREACHABLE).reason in REASONS


def test_a_field_is_named_in_message_and_details():
    error = InvalidField("parameters.top_p", "must be above 0")
    status = to_status(error)
    request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(request) for detail in status.details)
    assert request.field_violations[0].field == "parameters.top_p"
    assert "parameters.top_p" in error.message


def test_failure_of_a_batch_item():
    failure = to_failure(IonError(Reason.REASON_MODEL_QUOTA))
    assert (failure.reason, failure.retryable) == (Reason.REASON_MODEL_QUOTA, True)
    assert failure.message
