"""One question to a database, Redis among them: its span and its duration."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import urlsplit

from chassis import telemetry
from chassis.observability import metrics, tracing

_DEFAULT_PORTS: Final = {"postgresql": 5432, "redis": 6379}


@dataclass(frozen=True, slots=True)
class Server:
    """Who is asked. `address` "" for a file, `port` 0 where there is not one."""

    system: str
    address: str = ""
    port: int = 0

    @classmethod
    def of_url(cls, system: str, url: str) -> Server:
        """Of a URL that is well formed, the hosts alone: users, passwords and names of databases are not told."""
        netloc = urlsplit(url).netloc.rpartition("@")[2]
        if not netloc:
            return cls(system)
        hosts = [urlsplit(f"//{host}") for host in netloc.split(",")]
        port = (hosts[0].port or _DEFAULT_PORTS[system]) if len(hosts) == 1 else 0
        return cls(system, ",".join(host.hostname or "" for host in hosts), port)


class Question:
    """As a block, from the question to its answer. `summary` begins with the operation. It is not the current span
    inside, and it begins no trace: below a recorded span alone there is one."""

    __slots__ = ("_failure", "_server", "_span", "_started_at", "_summary")

    def __init__(self, server: Server, summary: str) -> None:
        self._server = server
        self._summary = summary
        self._span: tracing.Span | None = None
        self._failure = ""

    def __enter__(self) -> Self:
        if tracing.current_span().is_recorded:
            self._span = tracing.span(telemetry.DB_CLIENT, self._summary, self._attributes())
        self._started_at = time.perf_counter()
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if metrics.is_on():
            self._measure(self._failure or (tracing.error_type(error) if error else ""))
        if self._span is not None:
            self._span.end_with(error)

    def fail(self, kind: str, *, is_error: bool = True) -> None:
        """It has no answer, for a reason that the block does not raise. The first reason stands. `is_error`: somebody
        should look why."""
        if not self._failure:
            self._failure = kind
            if self._span is not None:
                self._span.fail(kind, is_error=is_error)

    def _measure(self, failure: str) -> None:
        measured = {telemetry.DB_SYSTEM: self._server.system, telemetry.DB_OPERATION: self._operation}
        if failure:
            measured[telemetry.ERROR_TYPE] = failure
        metrics.record(telemetry.DB_DURATION, time.perf_counter() - self._started_at, measured, self._span)

    @property
    def _operation(self) -> str:
        return self._summary.partition(" ")[0]

    def _attributes(self) -> dict[str, Any]:
        attributes: dict[str, Any] = {
            telemetry.DB_SYSTEM: self._server.system,
            telemetry.DB_OPERATION: self._operation,
            telemetry.DB_SUMMARY: self._summary,
        }
        if self._server.address:
            attributes[telemetry.SERVER_ADDRESS] = self._server.address
        if self._server.port:
            attributes[telemetry.SERVER_PORT] = self._server.port
        return attributes
