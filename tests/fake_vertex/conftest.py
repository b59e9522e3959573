from collections.abc import AsyncIterator

import grpc.aio
import pytest
from google.cloud.aiplatform_v1 import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcAsyncIOTransport

from tests.fake_vertex import FakeVertex


@pytest.fixture
async def vertex() -> AsyncIterator[FakeVertex]:
    async with FakeVertex(location="us-central1") as vertex:
        yield vertex


@pytest.fixture
async def client(vertex: FakeVertex) -> AsyncIterator[PredictionServiceAsyncClient]:
    async with grpc.aio.insecure_channel(vertex.endpoint) as channel:
        yield PredictionServiceAsyncClient(transport=PredictionServiceGrpcAsyncIOTransport(channel=channel))
