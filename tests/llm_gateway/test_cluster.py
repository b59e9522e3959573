"""What replicas share, over a Redis Cluster of three nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import RedisCluster as ClusterClient

from llm_gateway.cache import Followed, Found, Lease, ResponseCache, cache_key
from llm_gateway.generation import GenerationRequest
from tests.llm_gateway.conftest import NewReplica
from tests.llm_gateway.scripted_backend import asking, reply, until
from tests.llm_gateway.test_leases import outcome
from tests.redis_cluster import NODES, RedisCluster, redis_cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
async def client(cluster: RedisCluster) -> AsyncIterator[ClusterClient]:
    """What another program sees of it."""
    async with ClusterClient.from_url(cluster.url.replace("redis+cluster", "redis")) as client:
        await client.flushall(target_nodes=ClusterClient.PRIMARIES)
        yield client


@pytest.fixture
async def pair(cluster: RedisCluster, client: ClusterClient, replica: NewReplica) -> list[ResponseCache]:
    return [await replica(cluster.url, max_entries=100) for _ in range(2)]


def requests_of_all_nodes(client: ClusterClient) -> list[GenerationRequest]:
    """One request for each node: its keys are there."""
    found: dict[str, GenerationRequest] = {}
    number = 0
    while len(found) < NODES:
        request = asking(str(number), persona="Lua")
        found.setdefault(client.get_node_from_key(cache_key(request)).name, request)
        number += 1
    return list(found.values())


async def put(cache: ResponseCache, request: GenerationRequest, text: str, lease: Lease | None = None) -> None:
    await cache.put(cache_key(request), request, reply(text), made_at=cache._unix_now(), lease=lease)


async def test_replies_are_shared(pair, client):
    here, there = pair
    for request in requests_of_all_nodes(client):
        await put(here, request, "Hello!")
        assert await there.enter(cache_key(request), streamed=False) == Found(reply())
    assert here._store.refusals == there._store.refusals == 0


async def test_calls_are_led_and_followed(pair, client):
    here, there = pair
    for request in requests_of_all_nodes(client):
        lease = await here.enter(cache_key(request), streamed=True)
        lease.publish("Hel")
        followed = await there.enter(cache_key(request), streamed=True)
        pieces = followed.pieces()
        assert await anext(pieces) == "Hel"
        await put(here, request, "Hello!", lease)
        assert [piece async for piece in pieces] == ["lo!"]
        assert await outcome(followed) == Found(reply())


async def test_a_late_leader_is_fenced_off(pair, client):
    late, successor = pair
    for request in requests_of_all_nodes(client):
        key = cache_key(request)
        lost = await late.enter(key, streamed=False)
        await client.delete(f"{key}:unary")
        lease = await successor.enter(key, streamed=False)
        assert lease.token > lost.token
        await put(late, request, "late", lost)
        await put(successor, request, "in time", lease)
        assert late.get_near(key) is None
        assert await late.enter(key, streamed=False) == Found(reply("in time"))
    assert late.statistics.fenced_off == NODES


async def test_an_invalidation_reaches_all(pair, client):
    here, there = pair
    keys = [cache_key(request) for request in requests_of_all_nodes(client)]
    for request in requests_of_all_nodes(client):
        await put(here, request, "Hello!")
        await there.enter(cache_key(request), streamed=False)
    assert await here.invalidate(persona="Lua")
    await until(lambda: not any(there.get_near(key) for key in keys))
    assert [type(await there.enter(key, streamed=False)) for key in keys] == [Lease] * NODES


async def test_a_node_goes_away_and_comes_back(pair, cluster, client):
    here, there = pair
    requests = requests_of_all_nodes(client)
    followed: list[Followed] = []
    for request in requests:
        assert isinstance(await here.enter(cache_key(request), streamed=False), Lease)
        followed.append(await there.enter(cache_key(request), streamed=False))
    cluster.kill(2)
    assert await asyncio.gather(*map(outcome, followed)) == [None] * NODES
    assert await there.enter(cache_key(requests[0]), streamed=False) is None
    await put(there, requests[0], "alone")
    assert there.get_near(cache_key(requests[0])) == Found(reply("alone"))

    await asyncio.to_thread(cluster.restart, 2)
    await until(lambda: here._store.connected and there._store.connected, seconds=10)
    for request in requests:
        await put(here, request, "together")
        assert await there.enter(cache_key(request), streamed=False) == Found(reply("together"))
