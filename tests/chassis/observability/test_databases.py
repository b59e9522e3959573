"""What is told of a question to a database."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from chassis import telemetry
from chassis.observability import tracing
from chassis.observability.databases import Question, Server
from tests.observed import measured

SERVER = Server("redis", "cache", 6379)


@pytest.mark.parametrize(
    ("system", "url", "address", "port"),
    [
        ("postgresql", "postgresql://ion:secret@db.example/secret", "db.example", 5432),
        ("postgresql", "postgresql+asyncpg://ion:secret@db:6543/secret?ssl=require", "db", 6543),
        ("postgresql", "postgresql://ion:sec,r@et@[::1]:5433/secret", "::1", 5433),
        ("postgresql", "postgresql://ion:secret@one,two:6543/secret", "one,two", 0),
        ("redis", "rediss://:secret@cache/0", "cache", 6379),
        ("redis", "redis+cluster://one:7000,two:7000", "one,two", 0),
        ("redis", "unix:///secret/socket", "", 0),
    ],
)
def test_of_a_url_the_hosts_alone_are_told(system, url, address, port):
    assert Server.of_url(system, url) == Server(system, address, port)


def below_a_call() -> tracing.Span:
    return tracing.span(telemetry.RPC_SERVER, "call")


def test_a_question_is_below_its_call_and_not_the_current_span(spans):
    with measured() as seen, below_a_call() as call, Question(SERVER, "EVALSHA limit"):
        assert tracing.current_span() is call
    question, above = spans.get_finished_spans()
    assert (question.name, question.kind, question.parent) == ("EVALSHA limit", SpanKind.CLIENT, above.context)
    assert question.attributes == {
        telemetry.DB_SYSTEM: "redis",
        telemetry.DB_OPERATION: "EVALSHA",
        telemetry.DB_SUMMARY: "EVALSHA limit",
        telemetry.SERVER_ADDRESS: "cache",
        telemetry.SERVER_PORT: 6379,
    }
    (point,) = seen.points(telemetry.DB_DURATION)
    assert point.attributes == {telemetry.DB_SYSTEM: "redis", telemetry.DB_OPERATION: "EVALSHA"}
    assert [exemplar.span_id for exemplar in point.exemplars] == [question.context.span_id]


def test_a_file_has_no_address(spans):
    with below_a_call(), Question(Server("sqlite"), "SELECT thing"):
        pass
    assert not {telemetry.SERVER_ADDRESS, telemetry.SERVER_PORT} & spans.get_finished_spans()[0].attributes.keys()


def test_a_question_begins_no_trace_and_is_measured_all_the_same(spans):
    with measured() as seen, Question(SERVER, "EVALSHA limit"):
        pass
    assert not spans.get_finished_spans()
    assert seen.value(telemetry.DB_DURATION) == 1


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [(ValueError("secret"), "ValueError", StatusCode.ERROR), (asyncio.CancelledError(), "CANCELLED", StatusCode.UNSET)],
)
def test_of_an_error_the_kind_alone_is_told(spans, error, kind, status):
    def fail() -> None:
        with Question(SERVER, "EVALSHA limit"):
            raise error

    with measured() as seen, below_a_call():
        with pytest.raises(type(error)):
            fail()
        assert seen.value(telemetry.DB_DURATION, {telemetry.ERROR_TYPE: kind}) == 1
    question = spans.get_finished_spans()[0]
    assert (question.attributes[telemetry.ERROR_TYPE], question.status.status_code) == (kind, status)
    assert "secret" not in question.to_json()


def test_a_failure_that_is_not_raised(spans):
    with measured() as seen:
        with below_a_call(), Question(SERVER, "EVALSHA limit") as question:
            question.fail("late")
            question.fail("refused")
        assert seen.value(telemetry.DB_DURATION, {telemetry.ERROR_TYPE: "late"}) == 1
    assert spans.get_finished_spans()[0].attributes[telemetry.ERROR_TYPE] == "late"
