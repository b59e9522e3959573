"""Where traces, metrics and logs are sent, by the standard variables."""

from __future__ import annotations

import os
import sys
from typing import Any, Final, Literal

Signal = Literal["traces", "metrics", "logs"]
_OFF: Final = "none"


def wanted(signal: Signal) -> str:
    """ "otlp" or "console"; "" where nothing is to be sent."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ""
    chosen = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "")
    if chosen:
        return "" if chosen == _OFF else chosen
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return "otlp" if any(os.environ.get(name) for name in endpoints) else ""


def new_span_exporter() -> Any:
    # Imported where it is used: 100 ms of the start.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    return ConsoleSpanExporter(out=sys.stderr) if wanted("traces") == "console" else OTLPSpanExporter()
