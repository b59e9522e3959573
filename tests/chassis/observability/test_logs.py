"""The one line of a request, and lines that go to a receiver too."""

from __future__ import annotations

import logging

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from chassis.observability import logs, tracing
from tests.chassis.observability.written import lines

log = logging.getLogger("ion.request")


def test_the_line_of_a_request():
    with lines() as written:
        tracing.enter("r", f"00-{'a' * 32}-{'b' * 16}-00")
        logs.request(
            method="POST",
            route="/chat",
            status=200,
            duration_seconds=0.0123456789,
            persona="Lua",
            cache="hit",
            fallback=True,
        )
    (line,) = written.rest
    del line["time"]
    assert line == {
        "severity": "INFO",
        "logger": "ion.request",
        "message": "request",
        "service": "test",
        "request_id": "r",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "method": "POST",
        "route": "/chat",
        "status": 200,
        "duration_seconds": 0.012346,
        "persona": "Lua",
        "cache": "hit",
        "fallback": True,
    }


def test_what_is_not_known_is_not_told():
    with lines() as written:
        logs.request(method="GET", route="", status=0, duration_seconds=0.0, error_type="CANCELLED")
    (line,) = written.rest
    assert {"method", "duration_seconds", "reason"} < line.keys()
    assert not {"route", "status", "persona", "cache", "fallback"} & line.keys()


@pytest.mark.parametrize(
    ("status", "severity"),
    [(0, "INFO"), (200, "INFO"), (429, "INFO"), (500, "WARNING"), (503, "INFO"), (504, "WARNING")],
)
def test_failures_are_warnings_and_overload_is_none(status, severity):
    with lines() as written:
        logs.request(method="GET", route="/chat", status=status, duration_seconds=0.1)
    assert [line["severity"] for line in written.rest] == [severity]


def test_less_severe_than_asked_for_is_not_written():
    with lines(log_level="warning") as written:
        logs.request(method="GET", route="/chat", status=200, duration_seconds=0.1)
    assert written.rest == []


def test_what_waits_when_the_sending_ends_is_sent():
    exporter, provider = InMemoryLogRecordExporter(), LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    with lines() as written:
        tracing.enter("r", None)
        log.info("before")
        log.warning("before")
        assert written.next()
        with logs.sending(provider):
            for number in range(60):
                log.info("%d", number)
        log.info("after")
    sent = [each.log_record.body for each in exporter.get_finished_logs()]
    assert sent[-60:] == [str(number) for number in range(60)]
    assert "after" not in sent


def test_a_receiver_that_fails_keeps_no_line_from_being_written():
    class Failing:
        def get_logger(self, _name: str) -> None:
            raise OSError

    with lines() as written, logs.sending(Failing()):
        log.info("x")
    assert written.messages == ["x"]


def test_outside_of_writing_nothing_is_dropped_and_nothing_sent():
    assert logs.dropped() == 0
    with pytest.raises(RuntimeError), logs.sending(LoggerProvider(shutdown_on_exit=False)):
        pass


def test_libraries_say_nothing_for_debugging():
    """Theirs may hold what people write: the driver of SQLite tells each statement with its values."""
    with lines(log_level="debug") as written:
        logging.getLogger("aiosqlite").debug("executing %r", "what somebody wrote")
        logging.getLogger("chassis.x").debug("ours")
    assert written.messages == ["ours"]


def test_asyncio_tells_no_texts_of_errors():
    said = "what somebody wrote"
    with lines() as written:
        try:
            raise ValueError(said)
        except ValueError as error:
            text = f"Task exception was never retrieved\nfuture: <Task exception={error!r}>"
            logging.getLogger("asyncio").error(text, exc_info=error)
    (line,) = written.rest
    assert line["message"] == "Task exception was never retrieved"
    assert line["exc_info"].endswith("ValueError")
    assert said not in str(line)
