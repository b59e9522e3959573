"""Begins what a process tells of itself, and ends it: what was told is sent, and no end waits long for a receiver."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, Final

from chassis.observability import exporters, logs, tracing
from chassis.settings import Settings

FLUSH_SECONDS: Final = 3.0  # at the end, for all that was not sent


@contextmanager
def observing(service: str, settings: Settings, *, serves_metrics: bool = False) -> Iterator[None]:
    """Logs, and traces and metrics where they are wanted, until the block ends. Not to be nested. `serves_metrics`:
    somebody may ask for the metrics though nothing of the settings says so."""
    with ExitStack() as stack:
        logs.start(service, settings.log_level)
        if exporters.wanted("traces"):
            stack.enter_context(_tracing(_resource(service)))
        yield


def _resource(service: str) -> Any:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before."""
    from opentelemetry.sdk.resources import Resource

    name = os.environ.get("OTEL_SERVICE_NAME") or service
    return Resource.create(
        {
            "service.name": name,
            "service.namespace": "ion",
            "service.version": version("ion-chat"),
            "service.instance.id": str(uuid.uuid4()),
        }
    )


@contextmanager
def _tracing(resource: Any) -> Iterator[None]:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporters.new_span_exporter()))
    tracing.start(provider)
    try:
        yield
    finally:
        tracing.stop()
        provider.shutdown()
