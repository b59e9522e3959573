"""Standard error as a pipe, so that a test can wait for a line of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO
from unittest.mock import patch

from chassis.observability import logs
from chassis.settings import Settings


class Written:
    """`rest`: what was not read within the block."""

    def __init__(self, reader: TextIO) -> None:
        self.reader = reader
        self.rest: list[dict[str, Any]] = []

    def next(self) -> dict[str, Any]:
        return dict(json.loads(self.reader.readline()))

    @property
    def messages(self) -> list[str]:
        return [line["message"] for line in self.rest]


@contextmanager
def lines(**settings: Any) -> Iterator[Written]:
    """The lines of a service named "test", which of themselves wait for an hour."""
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as reader:
        written = Written(reader)
        try:
            with (
                os.fdopen(writing, "w", encoding="utf-8") as stream,
                patch.object(sys, "stderr", stream),
                logs.writing("test", Settings(**{"log_batch_seconds": 3600} | settings)),
            ):
                yield written
        finally:
            if not reader.closed:
                written.rest = [json.loads(line) for line in reader]
