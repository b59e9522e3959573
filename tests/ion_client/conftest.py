"""A whole ION, a scripted one, and clients of each kind for both."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.fake_vertex import FakeVertex
from tests.ion_client.kinds import KINDS, connected
from tests.ion_client.scripted import ScriptedRouter, Way, serving
from tests.stack.harness import Chain, bound_to, standalone, start, vertex_env

_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in one event loop: the servers live as long as the session."""
    for item in items:
        if "/ion_client/" in item.nodeid and inspect.iscoroutinefunction(getattr(item, "function", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A message that no other test has sent, so that no cache knows it."""
    return lambda text: f"{text} #{next(_numbers)}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _vertex() -> AsyncIterator[FakeVertex]:
    async with FakeVertex() as vertex:
        yield vertex


@pytest_asyncio.fixture(loop_scope="session")
async def vertex(_vertex: FakeVertex) -> AsyncIterator[FakeVertex]:
    """The model behind `chain`, answering as it does by default."""
    _vertex.reset()
    yield _vertex
    _vertex.reset()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chain(_vertex: FakeVertex) -> AsyncIterator[Chain]:
    async with standalone(vertex_env({"us-central1": _vertex.endpoint})) as started:
        yield started


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest_asyncio.fixture(loop_scope="session")
async def ion(chain: Chain, kind: str, vertex: FakeVertex) -> AsyncIterator[Any]:
    """A client of `chain`, of each kind in turn."""
    async with connected(kind, grpc=chain.router, http=chain.url.removeprefix("http://")) as client:
        yield client


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def _router() -> AsyncIterator[tuple[ScriptedRouter, str, str]]:
    router = ScriptedRouter()
    async with serving(router) as target:
        env = {"ION_ROUTER_TARGET": target, "ION_LLM_TARGET": target, "ION_HTTP_BIND": "127.0.0.1:0"}
        async with start("gateway_http", "gateway_http", env=env) as gateway:
            yield router, target, await bound_to(gateway)


@dataclass
class Scripted:
    """The scripted router behind both transports, and what connects to it."""

    router: ScriptedRouter
    kind: str
    grpc: str
    http: str

    def connect(self, **options: Any) -> Any:
        return connected(self.kind, grpc=self.grpc, http=self.http, **options)

    def way(self, **options: Any) -> Way:
        """A way that can be cut, for a client of this kind."""
        return Way(self.grpc if self.kind.endswith("grpc") else self.http, **options)

    def connect_by(self, way: Way, **options: Any) -> Any:
        return connected(self.kind, grpc=way.address, http=way.address, **options)


@pytest.fixture
def scripted(_router: tuple[ScriptedRouter, str, str], kind: str) -> Scripted:
    router, grpc, http = _router
    router.reset()
    return Scripted(router, kind, grpc, http)
