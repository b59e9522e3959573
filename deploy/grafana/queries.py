"""Questions to Prometheus, by the names that chassis.telemetry declares.

They are about the jobs that were chosen. What is per second is so over Grafana's $__rate_interval, what is counted is
so over the time that is shown.
"""

from __future__ import annotations

from typing import Final

from chassis import telemetry
from chassis.telemetry import Metric

PROCESS: Final = ("job", "instance")
SHOWN_PROCESS: Final = "{{job}} {{instance}}"
# As in ion.rules.yml: what was refused for a fault of the caller is neither a chat nor a failure.
_NOT_REFUSED: Final = 'http_response_status_code!~"4.."'
CHATS: Final = f'http_route=~"/chat|/v1/chat/completions", {_NOT_REFUSED}'
FAILED: Final = 'error_type!=""'
_NO_PROBES: Final = 'http_route!~"/livez|/readyz|/health|/metrics"'
_OUR_FAULT: Final = 'error_type!~"|CANCELLED"'
_ROUTED: Final = (
    'rpc_method=~"ion.router.v1.PersonaRouterService/Chat(Stream)?", '
    'rpc_response_status_code=~"OK|CANCELLED|DEADLINE_EXCEEDED"'
)
_NOT_ROUTED: Final = 'error_type!~"|CANCELLED|DEADLINE_EXCEEDED"'
_JOB: Final = 'job=~"$job"'

Query = tuple[str, str]  # and the legend of its series


def of(metric: Metric, *where: str, suffix: str = "") -> str:
    return f"{metric.prometheus_name}{suffix}{{{', '.join((_JOB, *where))}}}"


def total(metric: Metric, *by: str) -> str:
    return f"{_sum(by)} ({of(metric)})"


def rate(metric: Metric, *by: str, where: str = "") -> str:
    """Of a histogram: of what it counted."""
    return _rate(metric, by, where, "_count" if metric.buckets else "")


def increase(metric: Metric, *by: str) -> str:
    return f"{_sum(by)} (increase({of(metric)}[$__range]))"


def quantile(part: float, metric: Metric, *by: str, where: str = "") -> str:
    return f"histogram_quantile({part}, {_rate(metric, (*by, 'le'), where, '_bucket')})"


def share(part: str, whole: str) -> str:
    """Of each series in the one that is the whole."""
    return f"{part} / on () group_left () {whole}"


def requests(*by: str) -> str:
    return rate(telemetry.HTTP_DURATION, *by, where=_NO_PROBES)


def failed_share() -> str:
    known = f"{_NO_PROBES}, {_NOT_REFUSED}"
    failed = rate(telemetry.HTTP_DURATION, where=f"{known}, {_OUR_FAULT}")
    return f"{_or_none(failed)} / {rate(telemetry.HTTP_DURATION, where=known)}"


def apologies_share() -> str:
    """Of the chats over HTTP and gRPC: ion:chats:rate5m."""
    chats = (
        rate(telemetry.RPC_SERVER_DURATION, where=_ROUTED),
        rate(telemetry.CHAT_FALLBACKS, where='error_type="ROUTER_UNAVAILABLE"'),
        rate(telemetry.HTTP_DURATION, where=f"{CHATS}, {_NOT_ROUTED}"),
    )
    return f"{_or_none(rate(telemetry.CHAT_FALLBACKS))} / ({' + '.join(map(_or_none, chats))})"


def rates(metric: Metric, *by: str, where: str = "") -> Query:
    return rate(metric, *by, where=where), shown(*by)


def increases(metric: Metric, *by: str) -> Query:
    return increase(metric, *by), shown(*by)


def quantiles(part: float, metric: Metric, *by: str) -> Query:
    return quantile(part, metric, *by), shown(*by)


def percentiles(metric: Metric, where: str = "") -> list[Query]:
    return [(quantile(part / 100, metric, where=where), f"P{part}") for part in (50, 95, 99)]


def of_each(metric: Metric, *attributes: str) -> Query:
    """Process."""
    return of(metric), f"{shown(*attributes)} {SHOWN_PROCESS}".strip()


def shown(*attributes: str) -> str:
    return " ".join(f"{{{{{_label(attribute)}}}}}" for attribute in attributes)


def _rate(metric: Metric, by: tuple[str, ...], where: str, suffix: str) -> str:
    return f"{_sum(by)} (rate({of(metric, *filter(None, [where]), suffix=suffix)}[$__rate_interval]))"


def _or_none(query: str) -> str:
    return f"({query} or vector(0))"


def _sum(by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(map(_label, by))})" if by else "sum"


def _label(attribute: str) -> str:
    """As Prometheus knows it."""
    return attribute.replace(".", "_")
