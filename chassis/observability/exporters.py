"""Where traces, metrics and logs are sent, by the standard variables."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from typing import Any, Final, Literal, get_args

from chassis.observability import delivery
from chassis.settings import stop

Signal = Literal["traces", "metrics", "logs"]

SIGNALS: Final[tuple[Signal, ...]] = get_args(Signal)
_OFF: Final = "none"
_PROTOCOLS: Final = ("grpc", "http/protobuf")
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_SAMPLERS: Final = ("always_on", "always_off", "traceidratio")
_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "OTEL_EXPORTER_OTLP_PROTOCOL": _PROTOCOLS,
    **{f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL": _PROTOCOLS for signal in SIGNALS},
    **{f"OTEL_{signal.upper()}_EXPORTER": ("otlp", "console", _OFF) for signal in SIGNALS},
    **{f"OTEL_EXPORTER_OTLP_{signal}COMPRESSION": _COMPRESSIONS for signal in ("", "TRACES_", "METRICS_", "LOGS_")},
    "OTEL_METRICS_EXEMPLAR_FILTER": ("always_on", "always_off", "trace_based"),
    "OTEL_TRACES_SAMPLER": (*_SAMPLERS, *(f"parentbased_{sampler}" for sampler in _SAMPLERS)),
}
_RATIO: Final = "OTEL_TRACES_SAMPLER_ARG"
_WHOLE: Final = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_BLRP_MAX_QUEUE_SIZE",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_METRIC_EXPORT_INTERVAL",
)
_LIMITS: Final = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
_SECONDS: Final = (
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    *(f"OTEL_EXPORTER_OTLP_{signal.upper()}_TIMEOUT" for signal in SIGNALS),
)


def is_disabled() -> bool:
    """Whether nothing is to be traced, measured or sent."""
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"


def wanted(signal: Signal) -> str:
    """ "otlp" or "console"; "" where nothing is to be sent."""
    if is_disabled():
        return ""
    chosen = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "")
    if chosen:
        return "" if chosen == _OFF else chosen
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return "otlp" if any(os.environ.get(name) for name in endpoints) else ""


def check() -> None:
    """End the process with a line for each standard variable that says what there is not."""
    if not is_disabled() and (problems := [*_wrong_choices(), *_wrong_numbers()]):
        stop(*problems)


def _wrong_choices() -> Iterable[str]:
    for variable, allowed in _CHOICES.items():
        value = os.environ.get(variable)
        if value and value not in allowed:
            yield f"{variable}={value!r}: must be {', '.join(allowed[:-1])} or {allowed[-1]}"


def _wrong_numbers() -> Iterable[str]:
    for variable in (_RATIO, *_WHOLE, *_LIMITS, *_SECONDS):
        value = os.environ.get(variable)
        if not value:
            continue
        if variable == _RATIO and not 0 <= _number(value) <= 1:
            yield f"{variable}={value!r}: must be a number from 0 to 1"
        elif variable in _LIMITS and not value.isdecimal():
            yield f"{variable}={value!r}: must be a whole number"
        elif variable in _WHOLE and not (value.isdecimal() and int(value) > 0):
            yield f"{variable}={value!r}: must be a whole number greater than 0"
        elif variable in _SECONDS and not 0 < _number(value) < math.inf:
            yield f"{variable}={value!r}: must be a number of seconds greater than 0"


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


# The SDK and the exporters are imported where they are used: 100 ms of the start.


def new_span_exporter() -> Any:
    return _new("traces", "trace_exporter.OTLPSpanExporter", "trace.export.ConsoleSpanExporter")


def new_metric_exporter() -> Any:
    return _new("metrics", "metric_exporter.OTLPMetricExporter", "metrics.export.ConsoleMetricExporter")


def new_log_exporter() -> Any:
    return _new("logs", "_log_exporter.OTLPLogExporter", "_logs.export.ConsoleLogRecordExporter")


def _new(signal: Signal, otlp: str, console: str) -> Any:
    if wanted(signal) == "console":
        exporter = _imported(f"opentelemetry.sdk.{console}")(out=sys.stderr)
    else:
        exporter = _imported(f"opentelemetry.exporter.otlp.proto.{_package(signal)}.{otlp}")()
    return delivery.watched(exporter, signal)


def _package(signal: Signal) -> str:
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or general
    return "http" if protocol == "http/protobuf" else "grpc"


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)
