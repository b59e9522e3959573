"""The application as a whole: what stands around its routes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from chassis.caller import Admitted, Shown
from ion.router.v1 import router_pb2
from tests.gateway_http.serving import Gateway, gateway

pytestmark = pytest.mark.asyncio(loop_scope="module")


class WatchingDoor:
    """Notes from where callers come."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    async def admit(self, shown: Shown) -> Admitted:
        self.addresses.append(shown.address)
        return Admitted()

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None: ...


async def address_seen(forwarded: list[str], *trusted: str) -> str:
    """Of a client on 127.0.0.1 that sends these X-Forwarded-For headers."""
    door = WatchingDoor()
    settings = {"trusted_proxies": trusted}
    async with gateway({"ListPersonas": router_pb2.ListPersonasResponse()}, door, **settings) as (running, _):
        await running.http.get("/personas", headers=[("X-Forwarded-For", value) for value in forwarded])
    return door.addresses[0]


@pytest.mark.parametrize(
    ("forwarded", "trusted", "address"),
    [
        (["198.51.100.1"], [], "127.0.0.1"),  # nobody is believed
        (["198.51.100.1"], ["10.0.0.0/8"], "127.0.0.1"),  # somebody else is
        (["198.51.100.1"], ["127.0.0.1"], "198.51.100.1"),
        ([], ["127.0.0.1"], "127.0.0.1"),
        (["6.6.6.6, 198.51.100.1"], ["127.0.0.1"], "198.51.100.1"),  # what came before the proxy's own entry is hearsay
        (["6.6.6.6", "198.51.100.1"], ["127.0.0.1"], "198.51.100.1"),
        (["6.6.6.6, 198.51.100.1, 10.1.2.3"], ["127.0.0.1", "10.0.0.0/8"], "198.51.100.1"),  # a chain of proxies
        (["127.0.0.1, 198.51.100.1"], ["127.0.0.0/8"], "198.51.100.1"),
        (["[2001:db8::1]:4711"], ["127.0.0.1"], "2001:db8::1"),
    ],
)
async def test_where_a_client_is_only_trusted_proxies_say(forwarded, trusted, address):
    assert await address_seen(forwarded, *trusted) == address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Gateway]:
    async with gateway({"ListPersonas": router_pb2.ListPersonasResponse()}) as (started, _):
        yield started


async def test_browsers_get_the_page_and_others_what_this_is(running):
    browser = await running.http.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert browser.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in browser.headers["content-security-policy"]
    other = await running.http.get("/")
    assert other.json().keys() == {"service", "version", "status", "docs", "health"}
    assert other.headers["content-security-policy"].startswith("default-src 'none'")
    assert "Accept" in other.headers["vary"]
    assert "Accept" in browser.headers["vary"]


async def test_assets_are_served(running):
    browser = await running.http.get("/", headers={"Accept": "text/html"})
    path = next(part for part in browser.text.split('"') if part.startswith("./assets/"))
    asset = await running.http.get(path.removeprefix("."))
    assert asset.status_code == 200
    assert "immutable" in asset.headers["cache-control"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/chat", 405), ("GET", "/sessions/a/b/c", 404)]
)
async def test_what_is_not_there_is_a_problem(running, method, path, status):
    response = await running.http.request(method, path)
    assert response.status_code == status
    assert response.json().keys() == {"detail", "reason", "request_id"}


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/nowhere", 404), ("GET", "/v1/chat/completions", 405)]
)
async def test_openai_clients_hear_of_it_in_their_own_terms(running, method, path, status):
    response = await running.http.request(method, path)
    assert response.status_code == status
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}


def references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        yield from [document["$ref"]] if isinstance(document.get("$ref"), str) else []
        for value in document.values():
            yield from references(value)
    elif isinstance(document, list):
        for value in document:
            yield from references(value)


async def test_the_document_s_references_lead_somewhere(running):
    document = (await running.http.get("/openapi.json")).json()
    names = {reference.rpartition("/")[2] for reference in references(document)}
    assert {"RoutingEvent", "DeltaEvent", "DoneEvent", "ErrorEvent", "Problem", "ValidationFailed"} <= names
    assert names <= set(document["components"]["schemas"])
