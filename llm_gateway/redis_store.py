"""Redis as the cache that replicas share. It is optional and never waited for.

A request waits WAIT_SECONDS at most, and then goes on without. A command unanswered for ANSWER_SECONDS, or an error,
declares Redis away: from then on no request touches it, until a look in the background finds that it answers again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

WAIT_SECONDS: Final = 0.010
ANSWER_SECONDS: Final = 0.250
LOOK_SECONDS: Final = 1.0  # for one look, handshake included, and between looks while connected
FIRST_PAUSE_SECONDS: Final = 0.1  # between looks while away, doubling
LONGEST_PAUSE_SECONDS: Final = 2.0
_FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError)

_log = logging.getLogger(__name__)

OnState = Callable[[bool], Awaitable[None]]


class Store(Protocol):
    """Bytes by key, shared by replicas. Neither method raises or waits longer than WAIT_SECONDS."""

    @property
    def enabled(self) -> bool: ...

    async def get(self, key: str) -> bytes | None:
        """The value, or None where there is none or the store is not to be had in time."""
        ...

    async def set(self, key: str, value: bytes, *, ttl_seconds: float) -> None:
        """Keep the value, where the store is to be had; it may still be on its way when this returns."""
        ...

    async def close(self) -> None: ...


class NoStore:
    """No store: nothing is shared."""

    enabled = False

    async def get(self, key: str) -> bytes | None:
        return None

    async def set(self, key: str, value: bytes, *, ttl_seconds: float) -> None:
        """Keeps nothing."""

    async def close(self) -> None:
        """Holds nothing."""


async def _ignore_state(_connected: bool) -> None:
    """For those who need not know."""


class RedisStore:
    """See the module. `open` it; `on_state` is told at the start and with each change of `connected`."""

    enabled = True

    def __init__(self, client: Any, *, on_state: OnState = _ignore_state) -> None:
        self._client = client
        self._on_state = on_state
        self._gets: list[tuple[str, asyncio.Future[bytes | None]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.connected = True  # until the first look says otherwise: so that an absence is said

    @classmethod
    async def open(cls, url: str, *, on_state: OnState = _ignore_state) -> RedisStore:
        """A store that has looked once whether Redis is there; it may not be."""
        store = cls(_new_client(url), on_state=on_state)
        await on_state(store.connected)
        await store._look()
        store._start(store._keep_looking())
        return store

    async def get(self, key: str) -> bytes | None:
        """As in Store. The GETs of one turn of the event loop travel together."""
        if not self.connected:
            return None
        loop = asyncio.get_running_loop()
        if not self._gets:
            loop.call_soon(self._flush)
        answer: asyncio.Future[bytes | None] = loop.create_future()
        self._gets.append((key, answer))
        await asyncio.wait((answer,), timeout=WAIT_SECONDS)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None

    async def set(self, key: str, value: bytes, *, ttl_seconds: float) -> None:
        if self.connected:
            writing = self._start(self._set(key, value, ttl_seconds))
            await asyncio.wait((writing,), timeout=WAIT_SECONDS)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with suppress(*_FAILURES):
            await self._client.aclose()

    def _start(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _flush(self) -> None:
        gets, self._gets = self._gets, []
        self._start(self._get_all(gets))

    async def _get_all(self, gets: list[tuple[str, asyncio.Future[bytes | None]]]) -> None:
        values: list[Any] = []
        try:
            pipeline = self._client.pipeline(transaction=False)
            for key, _ in gets:
                pipeline.get(key)
            values = await pipeline.execute(raise_on_error=False)
        except _FAILURES as error:
            await self._lose(error)
        finally:
            for number, (_, answer) in enumerate(gets):
                value = values[number] if number < len(values) else None
                if not answer.done():
                    answer.set_result(value if isinstance(value, bytes) else None)

    async def _set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        try:
            await self._client.set(key, value, px=max(1, round(ttl_seconds * 1000)))
        except _FAILURES as error:
            await self._lose(error)

    async def _keep_looking(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            await asyncio.sleep(LOOK_SECONDS if self.connected else pause * random.uniform(0.5, 1.0))
            pause = FIRST_PAUSE_SECONDS if self.connected else min(2 * pause, LONGEST_PAUSE_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                if not self.connected:
                    await _drop_connections(self._client)
                await self._client.ping()
        except _FAILURES as error:
            await self._lose(error)
        else:
            await self._find()

    async def _lose(self, error: Exception) -> None:
        if self.connected:
            self.connected = False
            _log.warning(
                "Redis is away; replies are cached in this process only", extra={"cause": type(error).__name__}
            )
            await self._on_state(False)

    async def _find(self) -> None:
        if not self.connected:
            self.connected = True
            _log.info("Redis is connected again")
            await self._on_state(True)


def _new_client(url: str) -> Any:
    """A client that makes one attempt a command: its own retries would hold a request for seconds."""
    options: dict[str, Any] = {
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": ANSWER_SECONDS,
        "protocol": 2,  # what every Redis-protocol server speaks; RESP3 brings nothing to GET and SET
    }
    if not url.startswith("redis+cluster://"):
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    parts = urlsplit(url)
    hosts = parts.netloc.rpartition("@")[2].split(",")
    nodes = [ClusterNode(host, int(port or 6379)) for host, _, port in (item.rpartition(":") for item in hosts)]
    return RedisCluster(
        startup_nodes=nodes,
        username=parts.username,
        password=parts.password,
        retry=Retry(NoBackoff(), 1),  # one: a slot that has moved is found at its new node
        **options,
    )


async def _drop_connections(client: Any) -> None:
    """Connections from before an outage may hold replies that nobody waits for any more."""
    if isinstance(client, RedisCluster):
        await client.aclose()
    else:
        await client.connection_pool.disconnect(inuse_connections=False)
