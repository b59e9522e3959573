from collections.abc import AsyncIterator

import pytest

from llm_gateway.backends import Backend
from tests.fake_vertex import FakeVertex
from tests.llm_gateway.backends.vertex_calls import LOCATION, connect


@pytest.fixture
async def vertex() -> AsyncIterator[FakeVertex]:
    async with FakeVertex(location=LOCATION) as vertex:
        yield vertex


@pytest.fixture
async def backend(vertex: FakeVertex) -> AsyncIterator[Backend]:
    backend = await connect({LOCATION: vertex.endpoint})
    yield backend
    await backend.close()
