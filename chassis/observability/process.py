"""Begins what a process tells of itself, and ends it: what was told is sent, and no end waits long for a receiver."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from typing import Any, Final

from chassis import telemetry
from chassis.observability import delivery, exporters, logs, metrics, process_metrics, rpc, tracing
from chassis.settings import Settings

FLUSH_SECONDS: Final = 3.0  # at the end, for all that was not sent


@contextmanager
def observing(service: str, settings: Settings, *, serves_metrics: bool = False) -> Iterator[None]:
    """Logs, and traces and metrics where they are wanted, until the block ends. Not to be nested. `serves_metrics`:
    somebody may ask for the metrics though nothing of the settings says so. A standard variable that says what there is
    not ends the process with one line."""
    exporters.check()
    serves_metrics = (serves_metrics or settings.metrics_bind is not None) and not exporters.is_disabled()
    with ExitStack() as stack:
        stack.enter_context(logs.writing(service, settings))
        if serves_metrics or any(exporters.wanted(signal) for signal in exporters.SIGNALS):
            _begin(stack, _resource(service), settings, serves_metrics=serves_metrics)
        yield


def _begin(stack: ExitStack, resource: Any, settings: Settings, *, serves_metrics: bool) -> None:
    """Ended the other way round: what is still to be sent is, and then nothing is told any more."""
    endings: list[delivery.Ending] = []
    if exporters.wanted("traces"):
        stack.callback(tracing.stop)
        endings.append(_start_tracing(resource))
    readers = [_start_exposition(stack)] if serves_metrics else []
    if readers or exporters.wanted("metrics"):
        stack.callback(metrics.stop)
        endings.append(_start_metrics(resource, readers))
    stack.callback(delivery.end, endings, FLUSH_SECONDS)
    if exporters.wanted("logs"):
        provider, ending = _new_logger_provider(resource)
        endings.append(ending)
        stack.enter_context(logs.sending(provider))
    if serves_metrics and settings.metrics_bind:
        from chassis.observability import exposition

        stack.enter_context(exposition.serving(settings.metrics_bind))


def _resource(service: str) -> Any:
    """What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours = Resource.create(
        {
            "service.name": service,
            "service.namespace": "ion",
            "service.version": version("ion-chat"),
            "service.instance.id": str(uuid.uuid4()),
        }
    )
    return ours.merge(OTELResourceDetector().detect())


def _start_tracing(resource: Any) -> delivery.Ending:
    from opentelemetry.sdk.trace import TracerProvider

    exporter = exporters.new_span_exporter()
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(delivery.span_batches(exporter))
    tracing.start(provider)
    return provider.shutdown, exporter


def _start_exposition(stack: ExitStack) -> Any:
    from chassis.observability import exposition

    stack.callback(exposition.stop)
    return exposition.start()


def _start_metrics(resource: Any, readers: list[Any]) -> delivery.Ending:
    exporter = None
    if exporters.wanted("metrics"):
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        exporter = exporters.new_metric_exporter()
        readers.append(PeriodicExportingMetricReader(exporter))
    provider = metrics.start(readers, resource)
    process_metrics.observe()
    delivery.observe()
    metrics.observe(telemetry.RPC_ACTIVE, rpc.active_calls)
    return provider.shutdown, exporter


def _new_logger_provider(resource: Any) -> tuple[Any, delivery.Ending]:
    from opentelemetry.sdk._logs import LoggerProvider

    exporter = exporters.new_log_exporter()
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(delivery.log_batches(exporter))
    return provider, (provider.shutdown, exporter)
