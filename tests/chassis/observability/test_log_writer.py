"""Lines wait for others and no longer than they may; what has no room is counted; no end is lost, and none hangs."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from io import StringIO

import pytest

from chassis.observability import logs, tracing
from chassis.observability.log_writer import Handler, StandardError, Waiting, Writer
from chassis.settings import Settings
from tests.chassis.observability.written import lines

log = logging.getLogger("ion.request")


def record(
    message: str, *, request_id: str = "r", level: int = logging.INFO, name: str = "ion.request"
) -> logging.LogRecord:
    made = logging.makeLogRecord({"msg": message, "levelno": level, "name": name})
    made.request_id, made.traceparent = request_id, ""
    return made


def waiting(*, most: int = 1000, batch: int = 3, seconds: float = 3600.0) -> Waiting:
    return Waiting(most, batch, seconds)


def texts(batch: list[logging.LogRecord] | None) -> list[str]:
    assert batch is not None
    return [each.getMessage() for each in batch]


def test_a_batch_is_due_when_it_is_full_and_not_before():
    queue = waiting(batch=3)
    for text in "ab":
        queue.put_nowait(record(text))
    assert not queue.due.is_set()
    queue.put_nowait(record("c"))
    assert texts(queue.get()) == ["a", "b", "c"]
    assert not queue.due.is_set()


def test_a_line_waits_for_others_only_so_long():
    queue = waiting(seconds=0.01)
    queue.put_nowait(record("alone"))
    assert texts(queue.get()) == ["alone"]
    assert texts(queue.get()) == []


def test_all_that_is_due_comes_in_order_a_batch_at_a_time():
    queue = waiting(batch=3)
    for text in "abcdefg":
        queue.put_nowait(record(text))
    assert [texts(queue.get()) for _ in range(3)] == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


def test_what_waits_comes_before_the_end():
    queue = waiting(batch=2)
    for text in "abc":
        queue.put_nowait(record(text))
    queue.put_nowait(None)
    assert [texts(queue.get()), texts(queue.get()), queue.get()] == [["a", "b"], ["c"], None]


@pytest.mark.parametrize(
    ("name", "level", "request_id", "at_terminal", "at_once"),
    [
        ("ion.request", logging.INFO, "r", False, False),
        ("ion.request", logging.WARNING, "r", False, True),
        ("ion.request", logging.INFO, "r", True, True),
        ("x", logging.DEBUG, "r", False, False),
        ("x", logging.DEBUG, "", False, True),
        ("x", logging.INFO, "r", False, True),
    ],
)
def test_who_does_not_wait(name, level, request_id, at_terminal, at_once):
    queue = waiting()
    Handler(queue, at_once=at_terminal).enqueue(record("x", name=name, level=level, request_id=request_id))
    assert queue.due.is_set() == at_once


def test_a_warning_takes_along_what_waited_before_it():
    with lines() as written:
        tracing.enter("r", None)
        log.info("first")
        log.warning("second")
        assert [written.next()["message"], written.next()["message"]] == ["first", "second"]


async def test_each_line_has_the_ids_of_its_own_request():
    async def serve(number: int) -> None:
        tracing.enter(f"request-{number}", f"00-{number:032x}-{number:016x}-01")
        for _ in range(3):
            await asyncio.sleep(0)
            log.info("%d", number)

    with lines() as written:
        await asyncio.gather(*(serve(number) for number in range(1, 21)))
    assert len(written.rest) == 60
    for line in written.rest:
        number = int(line["message"])
        assert line["request_id"] == f"request-{number}"
        assert (int(line["trace_id"], 16), int(line["span_id"], 16)) == (number, number)


def test_arguments_are_told_as_they_were():
    things = ["one"]
    with lines() as written:
        tracing.enter("r", None)
        log.info("things: %s", things)
        things.append("two")
    assert written.messages == ["things: ['one']"]


def test_what_cannot_be_put_together_is_dropped_and_its_arguments_are_not_told(capsys):
    queue = waiting()
    Handler(queue, at_once=False).handle(logging.makeLogRecord({"msg": "%d", "args": ("what somebody wrote",)}))
    assert queue.dropped == 1
    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_made_keeps_no_other_from_being_written():
    endless: list[object] = []
    endless.append(endless)
    with lines() as written:
        log.info("before")
        log.info("never", extra={"endless": endless})
        log.info("after")
    assert written.messages[0] == "before"
    assert {"after", "log lines were dropped"} < set(written.messages)
    assert "never" not in written.messages


class Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.getMessage()} {record.__dict__.get('dropped', '')}".strip()


class Held(StandardError):
    """An output that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.is_asked, self.goes_on = threading.Event(), threading.Event()
        self.text = ""

    def write(self, text: str) -> None:
        self.is_asked.set()
        self.goes_on.wait()
        self.text += text

    def close(self) -> None: ...


def test_each_time_that_lines_are_lost_is_told_of_once_with_their_number():
    queue, output = waiting(), Held()
    output.goes_on.set()
    writer = Writer(queue, Plain(), output)
    for dropped in (0, 3, 5, 5, 5, 6, 6):
        queue.dropped = dropped
        writer.handle([])
    assert output.text.splitlines() == [
        "log lines are dropped: more come than are written",
        "log lines were dropped 5",
        "log lines are dropped: more come than are written",
        "log lines were dropped 1",
    ]


def test_without_room_lines_are_dropped_counted_and_told_of():
    queue, output = waiting(most=100, batch=50), Held()
    writer = Writer(queue, Plain(), output)
    writer.start()
    queue.put_nowait(record("written"))
    queue.hurry()
    output.is_asked.wait()
    for number in range(107):
        queue.put_nowait(record(str(number)))
    assert writer.dropped == 7
    output.goes_on.set()
    writer.stop()
    written = output.text.splitlines()
    assert [line for line in written if not line.isdigit()] == [
        "written",
        "log lines are dropped: more come than are written",
        "log lines were dropped 7",
    ]
    assert [line for line in written if line.isdigit()] == [str(number) for number in range(100)]


@pytest.mark.parametrize("end", [None, SystemExit(1), KeyboardInterrupt(), ValueError()])
def test_whatever_ends_the_block_what_waits_is_written(end):
    with suppress(BaseException), lines() as written:
        tracing.enter("r", None)
        for number in range(200):
            log.info("%d", number)
        if end:
            raise end
    assert written.messages == [str(number) for number in range(200)]


def test_nobody_reads_any_more():
    with lines() as written:
        written.reader.close()
        log.warning("unheard")
        log.warning("unheard")
        logs._writer.flush()
        assert logs.dropped() == 2  # and not what would tell of it: that would go on for ever


def test_a_standard_error_that_takes_nothing_does_not_hold_up_the_end_of_the_process():
    """Nor make Python abort, as it does where a thread is in a write to its own stream."""
    code = (
        "import logging\nfrom chassis.observability import logs\nfrom chassis.settings import Settings\n"
        "with logs.writing('test', Settings()):\n"
        "    for _ in range(300): logging.getLogger('x').warning('x' * 1000)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    assert process.stderr
    with process.stderr:
        assert process.wait(timeout=20) == 0


def test_what_was_there_before_is_there_again():
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    with lines(log_level="error"):
        assert root.level == logging.ERROR
        log.warning("not severe enough")
    assert (root.level, root.handlers) == (level, handlers)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("closed", [True, False])
def test_without_a_standard_error(closed, monkeypatch):
    stream = StringIO()
    monkeypatch.setattr(sys, "stderr", None if closed else stream)
    with logs.writing("test", Settings()):
        log.warning("x")
    assert len(stream.getvalue().splitlines()) == (0 if closed else 1)
