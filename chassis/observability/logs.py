"""How a process writes down what happens: lines of JSON on standard error, made and written in the background.

Who logs pays for a record and its place in a queue. What each request has, its one line, is written some at a time;
all else, and all there is where standard error is a terminal, at once. What `extra` holds is not to be changed
afterwards.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from chassis.observability.log_formats import new_formatter
from chassis.observability.log_writer import REQUEST_LOG, Handler, StandardError, Waiting, Writer
from chassis.settings import Settings

# Whose lines hold nothing of what people write, however much is told: those of libraries may, below INFO.
_OWN: Final = ("chassis", "gateway_http", "ion", "llm_gateway", "router_service", "standalone")
_request_log: Final = logging.getLogger(REQUEST_LOG)
_writer: Writer | None = None


@contextmanager
def writing(service: str, settings: Settings) -> Iterator[None]:
    """Log lines go to standard error until the block ends; what waits then is written first. Not to be nested."""
    global _writer
    waiting = Waiting(settings.log_queue_records, settings.log_batch_records, settings.log_batch_seconds)
    handler = Handler(waiting, at_once=sys.stderr is not None and sys.stderr.isatty())
    root = logging.getLogger()
    level = root.level
    _writer = Writer(waiting, new_formatter(service, settings.log_format), StandardError())
    _writer.start()
    root.addHandler(handler)
    wanted = logging.getLevelNamesMapping()[settings.log_level.upper()]
    root.setLevel(max(wanted, logging.INFO))
    _set_own_levels(wanted if wanted < logging.INFO else logging.NOTSET)
    try:
        yield
    finally:
        _set_own_levels(logging.NOTSET)
        root.setLevel(level)
        root.removeHandler(handler)
        _writer.stop()
        _writer = None


def _set_own_levels(level: int) -> None:
    for name in _OWN:
        logging.getLogger(name).setLevel(level)


@contextmanager
def sending(provider: Any) -> Iterator[None]:
    """The lines of the block go to this logger provider too; at its end all have been handed over. Within `writing`."""
    from chassis.observability.otlp_logs import Emitter

    if (writer := _writer) is None:
        raise RuntimeError("no lines are written")
    writer.emit = Emitter(provider).emit
    try:
        yield
    finally:
        writer.flush()
        writer.emit = None


def dropped() -> int:
    """Lines thrown away so far: there was no room for them, or standard error did not take them."""
    return _writer.dropped if _writer else 0


def request(
    *,
    method: str,
    route: str,
    status: int,
    duration_seconds: float,
    error_type: str = "",
    persona: str = "",
    cache: str = "",
    fallback: bool = False,
) -> None:
    """The one line of a request that the current call is for. `route`: as a template, "" where none answers. `status`:
    0 where the caller left before there was one. Overload is no warning: callers make it, and as much as they like."""
    level = logging.WARNING if status >= 500 and status != 503 else logging.INFO
    if not _request_log.isEnabledFor(level):
        return
    told: dict[str, object] = {"method": method, "duration_seconds": round(duration_seconds, 6)}
    where_known = {
        "route": route,
        "status": status,
        "reason": error_type,
        "persona": persona,
        "cache": cache,
        "fallback": fallback,
    }
    told |= {field: value for field, value in where_known.items() if value}
    _request_log.log(level, "request", extra=told)
