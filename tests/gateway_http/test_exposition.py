"""GET /metrics: what the process measures, for those who run it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from chassis import telemetry
from chassis.caller import Admitted, Caller, Shown
from chassis.errors import IonError
from chassis.observability import exposition, metrics
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2
from tests.gateway_http.serving import gateway

PERSONAS = {"ListPersonas": router_pb2.ListPersonasResponse(count=4)}


class Tiers:
    """Lets in as the tier that is shown as a key; without authentication if `known` is off."""

    def __init__(self, *, known: bool = True) -> None:
        self._known = known

    async def admit(self, shown: Shown) -> Admitted:
        if self._known and not shown.api_key:
            raise IonError(Reason.REASON_UNAUTHENTICATED)
        return Admitted(Caller("key:1" if self._known else "", shown.api_key))

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None: ...


@pytest.fixture
def on() -> Iterator[None]:
    provider = metrics.start([exposition.start()], Resource.get_empty())
    metrics.count(telemetry.CACHE_STORED)
    yield
    exposition.stop()
    metrics.stop()
    provider.shutdown()


@pytest.mark.usefixtures("on")
async def test_in_the_format_that_is_asked_for():
    async with gateway(PERSONAS, Tiers(known=False)) as (running, _):
        plain = await running.http.get("/metrics")
        assert plain.status_code == 200
        assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "ion_cache_stored_total 1.0\n" in plain.text
        asked = {"accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "gzip"}
        newer = await running.http.get("/metrics", headers=asked)
        assert newer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        assert "ion_cache_stored" in {family.name for family in text_string_to_metric_families(newer.text)}


@pytest.mark.usefixtures("on")
@pytest.mark.parametrize(
    ("tier", "status", "reason"),
    [("admin", 200, None), ("pro", 403, "PERMISSION_DENIED"), ("", 401, "UNAUTHENTICATED")],
)
async def test_for_the_tier_admin_where_callers_are_known(tier: str, status: int, reason: str | None):
    async with gateway(PERSONAS, Tiers()) as (running, _):
        answer = await running.http.get("/metrics", headers={"x-api-key": tier})
        assert answer.status_code == status
        assert reason is None or answer.json()["reason"] == reason
        assert ("ion_cache_stored_total" in answer.text) == (status == 200)


async def test_not_found_where_metrics_are_off():
    async with gateway(PERSONAS) as (running, _):
        off, unknown = await running.http.get("/metrics"), await running.http.get("/nothing")
        assert off.status_code == 404
        assert off.json() | {"request_id": ""} == unknown.json() | {"request_id": ""}
