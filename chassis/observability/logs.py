"""How a process writes down what happens."""

from __future__ import annotations

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from chassis.observability import tracing


def start(service: str, level: str) -> None:
    """Write lines of JSON to standard error, each with the ids of its request."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "severity", "name": "logger"},
            static_fields={"service": service},
            datefmt="%Y-%m-%dT%H:%M:%S%z",
            json_ensure_ascii=False,
        )
    )
    handler.addFilter(_add_call)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _add_call(record: logging.LogRecord) -> bool:
    call = tracing.current()
    if call.request_id:
        record.request_id = call.request_id
        record.trace_id = call.trace_id
    return True
