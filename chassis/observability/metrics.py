"""Measurements: histograms and counts as they happen, and what is looked up when somebody collects.

Off until `start`: what is measured then costs a look at a variable. Each metric is declared in chassis.telemetry, and
is either measured as it happens or observed, never both.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from chassis.observability import tracing
from chassis.observability.histograms import Histograms
from chassis.telemetry import SCOPE, Instrument, Metric

# A value, and the attributes that it is for.
Observed = tuple[float, Mapping[str, str]]
# Called by whoever collects, in another thread: it is to copy what it reads before it walks it.
Observe = Callable[[], Iterable[Observed]]

MAX_SERIES: Final = 2000  # of a metric; what comes after them counts under otel.metric.overflow

_log = logging.getLogger(__name__)
_meter: Any = None
_histograms: Histograms | None = None
_instruments: dict[str, Any] = {}
_observers: dict[str, list[Observe]] = {}
_broken: set[str] = set()  # metrics with an observer that has failed


def start(readers: Sequence[Any], resource: Any) -> Any:
    """Measure from now on, for these readers of the SDK. Returns the provider: shut down before `stop`, it still gives
    its readers what is observed."""
    global _meter, _histograms
    # Imported where it is used: 75 ms of the start.
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.view import View

    bounded = View(instrument_name="*", aggregation_cardinality_limit=MAX_SERIES)
    provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False, views=[bounded])
    _meter = provider.get_meter(SCOPE)
    _histograms = Histograms(max_series=MAX_SERIES)
    for reader in readers:
        _histograms.tell(reader, resource)
    return provider


def stop() -> None:
    """Measure nothing any longer, and forget the observers."""
    global _meter, _histograms
    _meter = _histograms = None
    _instruments.clear()
    _observers.clear()
    _broken.clear()


def is_on() -> bool:
    return _meter is not None


def record(
    metric: Metric, value: float, attributes: Mapping[str, Any] | None = None, span: tracing.Span | None = None
) -> None:
    """Of a histogram, in the event loop's thread. The span, by default the current one, becomes an exemplar where it is
    recorded."""
    if _histograms is not None:
        _histograms.record(metric, value, attributes, span or tracing.current_span())


def count(metric: Metric, attributes: Mapping[str, Any] | None = None, amount: float = 1) -> None:
    """Of a counter."""
    if _meter is not None:
        _counter(metric).add(amount, attributes, tracing.current_span().context)


def observe(metric: Metric, observer: Observe) -> None:
    """Ask `observer` for the values of a gauge or up-down counter, or the totals of a counter, each time that somebody
    collects, until `stop`. Several observers of a metric are to have different attributes; one that raises loses its
    own values alone. Nothing where metrics are off: who observes does so after the start."""
    if _meter is None:
        return
    _observers.setdefault(metric.name, []).append(observer)
    if metric.name not in _instruments:
        _instruments[metric.name] = _new_observable(metric)


def _counter(metric: Metric) -> Any:
    known = _instruments.get(metric.name)
    if known is None:
        known = _instruments[metric.name] = _meter.create_counter(metric.name, metric.unit, metric.description)
    return known


def _new_observable(metric: Metric) -> Any:
    create = {
        Instrument.COUNTER: _meter.create_observable_counter,
        Instrument.GAUGE: _meter.create_observable_gauge,
        Instrument.UP_DOWN: _meter.create_observable_up_down_counter,
    }[metric.instrument]
    return create(metric.name, [lambda _options: _observations(metric)], metric.unit, metric.description)


def _observations(metric: Metric) -> list[Any]:
    from opentelemetry.metrics import Observation

    observers = tuple(_observers.get(metric.name, ()))
    return [Observation(value, attributes) for observer in observers for value, attributes in _values(metric, observer)]


def _values(metric: Metric, observer: Observe) -> Sequence[Observed]:
    try:
        return tuple(observer())
    except Exception:
        if metric.name not in _broken:
            _broken.add(metric.name)
            _log.exception("defect in an observer of %s, whose values are missing from now on", metric.name)
        return ()
