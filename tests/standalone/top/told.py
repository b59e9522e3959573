"""Processes whose metrics a test records, as `ion top` sees them: through the text that Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry.sdk.resources import Resource

from chassis import telemetry
from chassis.observability import exposition, metrics
from standalone.top.looks import Look, Watched, read

Record = Callable[[], None]


@contextmanager
def process(service: str, instance: str = "1") -> Iterator[Callable[[float], Look]]:
    """What is recorded inside, as a look at that moment."""
    resource = Resource({"service.name": service, "service.instance.id": instance})
    provider = metrics.start([exposition.start()], resource)
    metrics.observe(telemetry.HTTP_STREAMS, lambda: [(0, {})])  # as every HTTP gateway tells

    def look(taken_at: float) -> Look:
        shown = exposition.current()
        assert shown
        return read(shown.render()[0].decode(), taken_at)

    try:
        yield look
    finally:
        exposition.stop()
        metrics.stop()
        provider.shutdown()


def watched(service: str, first: Record, then: Record, *, seconds: float = 2.0) -> Watched:
    """A process that was seen after `first`, and again after `then`."""
    with process(service) as look:
        first()
        before = look(10.0)
        then()
        return Watched(f"http://{service}/metrics", before=before, latest=look(10.0 + seconds))
