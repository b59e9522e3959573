"""Metrics as Prometheus asks for them: its text format, or OpenMetrics, which has exemplars too.

The published exporter gives no exemplars, so the SDK's points are made into Prometheus' own here. To be imported where
it is used: with what it needs it takes 150 ms of the start.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from itertools import accumulate
from socketserver import ThreadingTCPServer
from typing import Any, Final

from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from prometheus_client import Metric as Family
from prometheus_client.exposition import MetricsHandler, choose_encoder
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from chassis.settings import Bind
from chassis.telemetry import METRICS, Instrument, Metric

PATH: Final = "/metrics"
_TYPES: Final = {
    Instrument.COUNTER: "counter",
    Instrument.HISTOGRAM: "histogram",
    Instrument.GAUGE: "gauge",
    Instrument.UP_DOWN: "gauge",
}
_DECLARED: Final = {metric.name: metric for metric in METRICS}
MAX_CLIENTS: Final = 16
_CLIENT_SECONDS: Final = 10.0  # that a client may keep its thread waiting
_STOP_SECONDS: Final = 0.1

_log = logging.getLogger(__name__)


class Exposition:
    """What is measured in this process, for whoever asks. What no metric is declared for is left out."""

    def __init__(self) -> None:
        self.reader: Final = InMemoryMetricReader()
        # The last ones, by series and place of the bucket: the SDK forgets what it has told to somebody once, and there
        # may be others who ask.
        self._exemplars: dict[tuple[str, frozenset[Any]], dict[int, Exemplar]] = {}

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The text and its media type, by an Accept header. Takes milliseconds: for a thread beside the event loop."""
        encode, media_type = choose_encoder(accept)
        return encode(self), media_type

    def collect(self) -> Iterator[Family]:
        """As Prometheus' encoders ask a registry."""
        data = self.reader.get_metrics_data()
        for found in data.resource_metrics if data else ():
            yield _target(found.resource.attributes)
            metrics = (metric for scope in found.scope_metrics for metric in scope.metrics)
            yield from (
                self._family(_DECLARED[metric.name], metric.data) for metric in metrics if metric.name in _DECLARED
            )

    def _family(self, metric: Metric, data: Any) -> Family:
        name = metric.prometheus_name
        family = Family(name.removesuffix("_total"), metric.description, _TYPES[metric.instrument])
        for point in data.data_points:
            labels = _labels(point.attributes)
            if metric.instrument is Instrument.HISTOGRAM:
                _add_histogram(family, labels, point, self._exemplars_of(name, point))
            else:
                family.add_sample(name, labels, point.value)
        return family

    def _exemplars_of(self, name: str, point: Any) -> dict[int, Exemplar]:
        series = name, frozenset(point.attributes.items())
        if point.exemplars:
            self._exemplars.setdefault(series, {}).update(_exemplars(point))
        return self._exemplars.get(series, {})


_current: Exposition | None = None


def start() -> MetricReader:
    """Show from now on what this reader is told."""
    global _current
    _current = Exposition()
    return _current.reader


def stop() -> None:
    global _current
    _current = None


def current() -> Exposition | None:
    """None where metrics are off."""
    return _current


def _target(attributes: Mapping[str, Any]) -> Family:
    family = Family("target", "what tells this", "info")
    family.add_sample("target_info", _labels(attributes), 1)
    return family


def _add_histogram(family: Family, labels: dict[str, str], point: Any, exemplars: Mapping[int, Exemplar]) -> None:
    bounds = [*map(floatToGoString, point.explicit_bounds), "+Inf"]
    for bucket, (bound, count) in enumerate(zip(bounds, accumulate(point.bucket_counts), strict=True)):
        family.add_sample(f"{family.name}_bucket", labels | {"le": bound}, count, exemplar=exemplars.get(bucket))
    family.add_sample(f"{family.name}_count", labels, point.count)
    family.add_sample(f"{family.name}_sum", labels, point.sum)


def _exemplars(point: Any) -> dict[int, Exemplar]:
    """By the place of their bucket."""
    return {
        bisect_left(point.explicit_bounds, found.value): Exemplar(
            {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"},
            found.value,
            found.time_unix_nano / 1e9,
        )
        for found in point.exemplars
        if found.trace_id
    }


def _labels(attributes: Mapping[str, Any]) -> dict[str, str]:
    return {key.replace(".", "_"): _text(value) for key, value in attributes.items()}


def _text(value: Any) -> str:
    """Of UTF-8: one half of a surrogate pair would spoil the whole answer."""
    text = str(value)
    return text if text.isascii() else text.encode(errors="replace").decode()


class _Handler(MetricsHandler):
    timeout = _CLIENT_SECONDS

    def do_GET(self) -> None:
        path, shown = self.path.partition("?")[0], current()
        if path != PATH or shown is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        self.registry, self.path = shown, path  # a choice of metrics in the query is not heeded
        super().do_GET()


class _Server(ThreadingTCPServer):
    """Answers so many at a time; who comes beyond them is sent away, so that nobody piles up threads."""

    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._places = threading.BoundedSemaphore(MAX_CLIENTS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # whoever asked is gone
            _log.exception("defect in %s", PATH)


@contextmanager
def serving(bind: Bind) -> Iterator[int]:
    """Show the metrics at /metrics of the port that is yielded, and nothing else, in threads of their own. Ends the
    process with one line where the port is not to be had."""
    from chassis.server import listen  # imports this package in turn

    with _Server(listen(bind, "ION_METRICS_BIND")) as server:
        threading.Thread(target=server.serve_forever, args=(_STOP_SECONDS,), daemon=True, name="metrics").start()
        try:
            yield int(server.socket.getsockname()[1])
        finally:
            server.shutdown()
