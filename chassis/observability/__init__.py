"""How a process tells of itself: traces, metrics, logs. What there is to tell is declared in chassis.telemetry."""

from chassis.observability.process import observing

__all__ = ["observing"]
