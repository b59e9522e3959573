"""The way of a log record from where it is made to standard error: a queue, and a thread that writes."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from logging.handlers import QueueHandler, QueueListener
from typing import Final

from chassis.observability import tracing
from chassis.observability.log_formats import stack

REQUEST_LOG: Final = "ion.request"  # what writes the one line a request
FLUSH_SECONDS: Final = 1.0  # for what waits, where standard error takes nothing

_log: Final = logging.getLogger(__name__)


class Waiting:
    """Records that wait to be written: a queue as the standard library's handlers know it, with room for `most`. They
    are due when there is a batch of them, after `seconds`, or when somebody is in a hurry."""

    def __init__(self, most: int, batch: int, seconds: float) -> None:
        self._most, self._batch, self._seconds = most, min(batch, most), seconds
        self._records: deque[logging.LogRecord] = deque()
        self.due = threading.Event()
        self._left = 0  # of those that were due, still to be handed out
        self._closed = False
        self.accepted = 0
        self.dropped = 0

    def put_nowait(self, record: logging.LogRecord | None) -> None:
        """Without room it is dropped, and counted. None: no more will come."""
        if record is None:
            self._closed = True
            self.hurry()
        elif len(self._records) >= self._most:
            self.dropped += 1
        else:
            self._records.append(record)
            self.accepted += 1
            if len(self._records) >= self._batch:
                self.hurry()

    def hurry(self) -> None:
        if not self.due.is_set():
            self.due.set()

    def get(self, _block: bool = True) -> list[logging.LogRecord] | None:
        """A batch of those that are due, or none of them after `seconds`; None when no more will come."""
        if not self._left:
            if not self._closed:
                self.due.wait(self._seconds)
                self.due.clear()
            self._left = len(self._records)
            if self._closed and not self._left:
                return None
        batch = [self._records.popleft() for _ in range(min(self._left, self._batch))]
        self._left -= len(batch)
        return batch


class Handler(QueueHandler):
    """Takes records where they are made."""

    queue: Waiting

    def __init__(self, waiting: Waiting, *, at_once: bool) -> None:
        super().__init__(waiting)
        self._at_once = at_once

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """With the ids of its call, and without what may have changed when it is written, or would keep alive what an
        error has seen."""
        call = tracing.current()
        record.request_id, record.traceparent = call.request_id, call.traceparent
        if record.args:
            record.msg, record.args = record.getMessage(), None
        return without_error(record) if record.exc_info else record

    def enqueue(self, record: logging.LogRecord) -> None:
        self.queue.put_nowait(record)
        if self._at_once or not _can_wait(record):
            self.queue.hurry()

    def handleError(self, record: logging.LogRecord) -> None:
        """One that cannot be put together is dropped: the library's own way is to print its arguments."""
        self.queue.dropped += 1


def without_error(record: logging.LogRecord) -> logging.LogRecord:
    """With its stack and its type in the place of it: in a copy, as other handlers may want it."""
    error = record.exc_info[1] if record.exc_info else None
    told = copy(record)
    told.exc_info, told.exc_text, told.error_type = None, stack(error), type(error).__qualname__
    if record.name == "asyncio":  # says it all once more below the first line, texts of errors among it
        told.msg = str(record.msg).partition("\n")[0]
    return told


def _can_wait(record: logging.LogRecord) -> bool:
    """What requests have without anything being the matter: their one line, and what is told for debugging."""
    is_usual = record.levelno < logging.INFO or (record.name == REQUEST_LOG and record.levelno < logging.WARNING)
    return is_usual and bool(record.__dict__["request_id"])


class Writer(QueueListener):
    """The thread that writes. What is lost is told when it begins, and when it is over."""

    queue: Waiting

    def __init__(self, waiting: Waiting, formatter: logging.Formatter, output: StandardError) -> None:
        super().__init__(waiting)
        self._formatter, self._output = formatter, output
        self.emit: Callable[[logging.LogRecord], None] | None = None
        self._lost = 0
        self._seen = self._told = 0  # of those dropped
        self._is_losing = False
        self._handled = 0
        self._progress = threading.Condition()

    @property
    def dropped(self) -> int:
        return self.queue.dropped + self._lost

    def handle(self, batch: list[logging.LogRecord]) -> None:  # type: ignore[override]
        """All that the queue hands out at a time."""
        self._pass_on(batch)
        self._write_down(batch)
        self._tell_of_losses()
        with self._progress:
            self._handled += len(batch)
            self._progress.notify_all()

    def flush(self) -> None:
        """Have all that is there written. Waits FLUSH_SECONDS at most."""
        wanted = self.queue.accepted
        self.queue.hurry()
        with self._progress:
            self._progress.wait_for(lambda: self._handled >= wanted, FLUSH_SECONDS)

    def stop(self) -> None:
        """Write what is there, within FLUSH_SECONDS."""
        self.enqueue_sentinel()
        if (thread := self._thread) is None:
            return
        thread.join(FLUSH_SECONDS)
        if not thread.is_alive():
            self._tell_of_losses(at_end=True)
            self._output.close()

    def _pass_on(self, batch: list[logging.LogRecord]) -> None:
        if emit := self.emit:
            for record in batch:
                with suppress(Exception):  # the exporter counts what it loses
                    emit(record)

    def _write_down(self, batch: list[logging.LogRecord]) -> None:
        lines = [line for record in batch if (line := self._line(record))]
        try:
            self._output.write("".join(lines))
        except (OSError, ValueError):  # nobody reads it any more, the disk is full, or it is closed
            self._lost += len(lines)

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return f"{self._formatter.format(record)}\n"
        except Exception:
            self._lost += 1
            return ""

    def _tell_of_losses(self, *, at_end: bool = False) -> None:
        total = self.dropped
        goes_on = total != self._seen and not at_end
        self._seen = total
        if goes_on and not self._is_losing:
            self._say("log lines are dropped: more come than are written")
        elif not goes_on and total != self._told:
            self._say("log lines were dropped", dropped=total - self._told)
            self._told = total
        self._is_losing = goes_on

    def _say(self, text: str, **extra: object) -> None:
        """Past the queue, which is what it is about; not counted where it cannot be written, so that it ends."""
        if _log.isEnabledFor(logging.WARNING):
            record = _log.makeRecord(_log.name, logging.WARNING, __file__, 0, text, (), None, extra=extra)
            record.request_id = record.traceparent = ""
            with suppress(OSError, ValueError):
                self._output.write(self._line(record))


class StandardError:
    """Written to below Python's own stream: a write that blocks would hold the stream's lock, and Python aborts where
    it finds that at its end."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        try:
            self._descriptor: int | None = os.dup(sys.stderr.fileno())
        except (AttributeError, OSError, ValueError):  # closed, or a stream in memory
            self._descriptor = None

    def write(self, text: str) -> None:
        if self._descriptor is not None:
            _write_all(self._descriptor, text.encode("utf-8", "backslashreplace"))
        elif self._stream:
            self._stream.write(text)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
