"""Which failed calls are made again: over a scripted router, and over connections that are cut."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

import ion_client
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from ion_client import _async_client, _client, _retry
from ion_client._asks import PersonasAsk
from ion_client._http.sync import HttpTransport
from ion_client._retry import Deadline, Envelope, wait_before_retry
from ion_client.errors import CONNECTION_LOST, UNREACHABLE, failure
from tests.stack.harness import free_port


def overloaded(seconds: float = 0.01) -> IonError:
    return IonError(Reason.REASON_OVERLOADED, retry_after_seconds=seconds)


def decided(error, **given):
    usual = {"max_retries": 2, "repeatable": True, "remaining_seconds": 30.0, "jitter": 1.0}
    return wait_before_retry(error, given.pop("attempt", 0), **(usual | given))


@pytest.mark.parametrize("reason", ["RATE_LIMITED", "OVERLOADED", "DATABASE_UNAVAILABLE", UNREACHABLE])
def test_what_was_refused_is_retried_even_where_it_must_not_be_done_twice(reason):
    assert decided(failure(reason, ""), repeatable=False) is not None


@pytest.mark.parametrize("reason", [CONNECTION_LOST, "ROUTER_UNAVAILABLE", "LLM_GATEWAY_UNAVAILABLE"])
def test_what_may_have_been_done_is_retried_only_where_twice_is_as_good_as_once(reason):
    assert decided(failure(reason, ""), repeatable=True) is not None
    assert decided(failure(reason, ""), repeatable=False) is None


@pytest.mark.parametrize(
    "reason",
    [
        "INVALID_FIELD",
        "UNAUTHENTICATED",
        "SESSION_NOT_FOUND",
        "INTERNAL",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
        "BAD_ANSWER",
    ],
)
def test_what_would_fail_again_is_not_retried(reason):
    assert decided(failure(reason, "")) is None


def test_an_unknown_refusal_is_retried_where_it_says_when():
    assert decided(failure("NEW", "", otherwise=ion_client.Unavailable, retry_after_seconds=1.0)) is not None
    assert decided(failure("NEW", "", otherwise=ion_client.Unavailable)) is None


def test_the_wait_doubles_up_to_a_limit_and_is_spread():
    error = failure("OVERLOADED", "")
    waits = [decided(error, attempt=attempt, max_retries=99) for attempt in range(8)]
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    assert decided(error, jitter=0.0) == 0.1


def test_the_wait_is_never_shorter_than_the_service_says():
    assert decided(failure("OVERLOADED", "", retry_after_seconds=7.0), jitter=0.0) > 7.0


def test_there_is_no_wait_beyond_the_deadline_or_the_retries():
    error = failure("OVERLOADED", "", retry_after_seconds=7.0)
    assert decided(error, remaining_seconds=7.0) is None
    assert decided(error, attempt=1) is not None
    assert decided(error, attempt=2) is None
    assert decided(error, max_retries=0) is None


async def test_a_refused_call_comes_again_when_it_was_told_to(scripted):
    scripted.router.script.extend([overloaded(0.5), None])
    async with scripted.connect() as ion:
        reply = await ion.chat("hello", session_id="talk", timeout_seconds=3)
    assert reply.text == "fine"
    first, second = scripted.router.calls
    assert second.at - first.at >= 0.5
    assert first.request == second.request
    assert first.metadata["x-request-id"] == second.metadata["x-request-id"] == reply.request_id
    assert second.remaining_seconds < 2.8  # the wait came off the same time


async def test_a_call_is_given_up_after_its_retries(scripted):
    scripted.router.script.extend([overloaded()] * 5)
    async with scripted.connect(max_retries=1) as ion:
        with pytest.raises(ion_client.Unavailable) as raised:
            await ion.chat("hello")
    assert len(scripted.router.calls) == 2
    assert (raised.value.reason, raised.value.retryable, raised.value.refused) == ("OVERLOADED", True, True)
    assert raised.value.retry_after_seconds > 0
    assert raised.value.request_id == scripted.router.calls[0].metadata["x-request-id"]


async def test_a_call_is_given_up_at_once_where_the_deadline_would_pass_first(scripted):
    scripted.router.script.append(overloaded(60))
    async with scripted.connect() as ion:
        with pytest.raises(ion_client.Unavailable) as raised:
            await ion.chat("hello", timeout_seconds=20)
    assert len(scripted.router.calls) == 1
    assert raised.value.retry_after_seconds == 60


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_client_that_is_closed_before_the_next_attempt_makes_none(scripted, monkeypatch, streamed):
    scripted.router.script.extend([overloaded(), overloaded()])
    async with scripted.connect() as ion:

        async def close(seconds):
            await ion.close()

        monkeypatch.setattr(_client, "time", SimpleNamespace(sleep=lambda seconds: ion.sync.close()))
        monkeypatch.setattr(_async_client, "asyncio", SimpleNamespace(sleep=close))
        with pytest.raises(ion_client.Cancelled):
            await (ion.stream("hello").read() if streamed else ion.chat("hello"))
    assert len(scripted.router.calls) == 1


def test_a_sync_call_over_http_that_comes_just_after_the_close_is_told_so():
    transport = HttpTransport("http://127.0.0.1", None)
    transport.close()
    with pytest.raises(ion_client.Cancelled):
        transport.call(PersonasAsk(), Envelope({}, Deadline.after(1)))


async def test_what_is_not_retryable_is_not_retried(scripted):
    scripted.router.script.append(IonError(Reason.REASON_INTERNAL))
    async with scripted.connect() as ion:
        with pytest.raises(ion_client.Internal):
            await ion.chat("hello")
    assert len(scripted.router.calls) == 1


async def test_a_stream_is_begun_anew_before_its_first_text(scripted):
    scripted.router.script.append(overloaded())
    async with scripted.connect() as ion:
        events = [event async for event in ion.stream("hello", session_id="talk").events()]
    kinds = [type(event).__name__ for event in events]
    assert kinds == ["Routed", "Routed", "Text", "Text", "Done"]
    assert events[-1].reply.text == "fine"
    assert len(scripted.router.calls) == 2


async def test_a_stream_is_not_begun_anew_after_its_first_text(scripted):
    scripted.router.script.append(["fi", overloaded()])
    async with scripted.connect() as ion:
        with pytest.raises(ion_client.Interrupted) as raised:
            await ion.stream("hello").read()
    assert (raised.value.text, raised.value.reason) == ("fi", "OVERLOADED")
    assert raised.value.request_id == scripted.router.calls[0].metadata["x-request-id"]
    assert len(scripted.router.calls) == 1


async def test_an_export_is_not_begun_anew_after_its_first_turn(scripted):
    scripted.router.script.append(overloaded())
    async with scripted.connect() as ion:
        turns = ion.export_session("talk")
        assert (await anext(turns)).turn_id == 0
        with pytest.raises(ion_client.Interrupted):
            [turn async for turn in turns]
    assert len(scripted.router.calls) == 1


async def test_a_lost_answer_is_asked_for_again(scripted):
    async with scripted.way() as way, scripted.connect_by(way) as ion:
        way.answers_to_lose = 1
        assert (await ion.chat("hello")).text == "fine"
    assert len(scripted.router.calls) == 2


async def test_a_lost_answer_in_a_session_is_not_asked_for_again(scripted):
    """The turn may be stored; a second one would be."""
    async with scripted.way() as way, scripted.connect_by(way) as ion:
        way.answers_to_lose = 1
        with pytest.raises(ion_client.Unavailable) as raised:
            await ion.chat("hello", session_id="talk")
    assert (raised.value.reason, raised.value.refused) == ("CONNECTION_LOST", False)
    assert len(scripted.router.calls) == 1


async def test_an_unreachable_service_is_tried_again(scripted, monkeypatch):
    """Also in a session, since nothing was sent; it comes up after the first attempt."""
    failed, loop = asyncio.Event(), asyncio.get_running_loop()

    def noting(error, *args, **given):
        loop.call_soon_threadsafe(failed.set)
        return wait_before_retry(error, *args, **given)

    monkeypatch.setattr(_retry, "wait_before_retry", noting)
    way = scripted.way(port=free_port())
    async with scripted.connect_by(way, max_retries=20) as ion:
        call = asyncio.create_task(ion.chat("hello", session_id="talk"))
        await failed.wait()
        async with way:
            assert (await call).text == "fine"
    assert len(scripted.router.calls) == 1


async def test_a_service_that_stays_unreachable_is_told_so(scripted):
    way = scripted.way(port=free_port())
    async with scripted.connect_by(way, max_retries=1) as ion:
        for call in (ion.chat, lambda text: ion.stream(text).read()):
            with pytest.raises(ion_client.Unavailable) as raised:
                await call("hello")
            assert (raised.value.reason, raised.value.refused) == ("UNREACHABLE", True)
            assert raised.value.request_id


async def test_a_deletion_is_not_made_twice(scripted):
    """The second one would not find the session, and look as if there had been none."""
    scripted.router.script.append(IonError(Reason.REASON_ROUTER_UNAVAILABLE))
    async with scripted.connect() as ion:
        with pytest.raises(ion_client.Unavailable):
            await ion.delete_session("talk")
    assert len(scripted.router.calls) == 1


@pytest.mark.parametrize("kind", ["sync grpc", "async grpc"], indirect=True)
@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, ion_client.InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, ion_client.NotFound),
        (grpc.StatusCode.PERMISSION_DENIED, ion_client.Unauthenticated),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ion_client.Unavailable),
        (grpc.StatusCode.UNIMPLEMENTED, ion_client.Internal),
    ],
)
async def test_a_status_without_a_reason_is_told_by_its_code_alone(scripted, code, error):
    scripted.router.script.append(code)
    async with scripted.connect() as ion:
        with pytest.raises(ion_client.IonClientError) as raised:
            await ion.delete_session("talk")
    assert type(raised.value) is error
    assert raised.value.reason == code.name
    assert "nobody" not in str(raised.value)
    assert not raised.value.refused


@pytest.mark.parametrize("kind", ["sync grpc", "async grpc"], indirect=True)
async def test_a_reason_of_somebody_else_is_none_of_ions_and_when_to_come_again_still_counts(scripted):
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="words of nobody's")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="somebody"))
    status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay={"nanos": 10_000_000}))
    scripted.router.script.extend([status, status])
    async with scripted.connect(max_retries=1) as ion:
        with pytest.raises(ion_client.Unavailable) as raised:
            await ion.chat("hello")
    assert len(scripted.router.calls) == 2
    assert (raised.value.reason, raised.value.refused) == ("UNAVAILABLE", False)
    assert "nobody" not in str(raised.value)
