"""Where calls are counted: in Redis for all replicas together, or in this process alone while Redis is away or late.

Redis is not waited for longer than a bound. A call that it does not count in time is counted here; a broken connection,
or LATE_CALLS in a row, declare it away, and no call asks it until a look in the background finds it in time again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage, RedisClusterStorage, RedisStorage
from redis.asyncio import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chassis import telemetry
from chassis.access.windows import Window
from chassis.observability import metrics
from chassis.observability.databases import Question, Server

LOOK_SECONDS: Final = 1.0  # for one look, connection included
FIRST_PAUSE_SECONDS: Final = 0.1  # between looks while away, doubling
LONGEST_PAUSE_SECONDS: Final = 2.0
LATE_CALLS: Final = 3
# At once; the others queue here, where their waiting is not held against Redis.
CONNECTIONS: Final = 16
_PREFIX: Final = "ion:limit"
_CLUSTER_SCHEME: Final = "redis+cluster://"
_DEFAULT_PORT: Final = 6379
_NO_LIMIT: Final = 1 << 52  # exact in Lua's numbers
_LOOK: Final = RateLimitItemPerSecond(_NO_LIMIT, 1)
_SUMMARY: Final = "EVALSHA limit"

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Storage(Protocol):
    """What is used of a storage of `limits`."""

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool: ...

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]: ...


class Tally:
    """The counts of one storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def window(self, item: RateLimitItem, who: str) -> Window:
        counts = await self._storage.get_sliding_window(item.key_for(who), item.get_expiry())
        return Window(*counts, period_seconds=item.get_expiry())

    async def take(self, item: RateLimitItem, who: str) -> bool:
        """Count one, unless the limit is reached."""
        return await self._storage.acquire_sliding_window_entry(item.key_for(who), item.amount, item.get_expiry())

    async def add(self, item: RateLimitItem, who: str, amount: int) -> None:
        """Count so many in any case."""
        await self._storage.acquire_sliding_window_entry(item.key_for(who), _NO_LIMIT, item.get_expiry(), amount)


class LocalCounters:
    """Counts in this process alone."""

    def __init__(self) -> None:
        self._tally = Tally(MemoryStorage())

    async def use(self, work: Callable[[Tally], Awaitable[T]]) -> T:
        return await work(self._tally)

    async def close(self) -> None:
        """Holds nothing."""


class SharedCounters:
    """See the module. `open` it."""

    def __init__(self, storage: RedisStorage, server: Server, *, wait_seconds: float) -> None:
        bridge: Any = storage.bridge
        self._client = bridge.get_connection()
        self._server = server
        self._shared = Tally(storage)
        self._local = LocalCounters()
        self._wait_seconds = wait_seconds
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._late_calls = 0
        self._looking: asyncio.Task[None] | None = None
        self._is_closing = False
        self.connected = True  # until the first look says otherwise: so that an absence is said

    @classmethod
    async def open(cls, url: str, *, wait_seconds: float) -> SharedCounters:
        """Counters that have looked whether Redis is there; it may not be. Raises ValueError for a malformed URL."""
        counters = cls(_open_storage(url), Server.of_url("redis", url), wait_seconds=wait_seconds)
        await counters._look()
        metrics.observe(telemetry.REDIS_CONNECTED, lambda: [(int(counters.connected), {telemetry.REDIS_USE: "limits"})])
        return counters

    async def use(self, work: Callable[[Tally], Awaitable[T]]) -> T:
        """What `work` makes of the shared counts, or of this process's own where Redis is away, late or refuses."""
        async with self._slots:
            if self.connected:
                try:
                    with Question(self._server, _SUMMARY):
                        async with asyncio.timeout(self._wait_seconds):
                            result = await work(self._shared)
                    self._late_calls = 0
                    return result
                except Exception as error:  # clients raise more than RedisError when a connection breaks
                    self._notice(error)
        return await self._local.use(work)

    async def close(self) -> None:
        self._is_closing = True  # a cluster's client may answer a cancellation with an error of its own
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        with suppress(Exception):  # nothing is left to be lost
            async with asyncio.timeout(LOOK_SECONDS):
                await self._client.aclose()

    def _notice(self, error: Exception) -> None:
        self._late_calls += 1
        if not isinstance(error, TimeoutError) or self._late_calls >= LATE_CALLS:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        if self.connected:
            self.connected = False
            _log.warning("Redis is away; limits hold in each process alone", extra={"cause": type(error).__name__})
        if not self._is_closing and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look_until_found(), context=Context())  # nobody's request

    async def _look_until_found(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not (self.connected or self._is_closing):
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            await self._look()

    async def _look(self) -> None:
        """The same work that calls need, once to connect and once in their time."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._ping()
                await self._shared.add(_LOOK, "look", 1)
            async with asyncio.timeout(self._wait_seconds):
                await self._shared.add(_LOOK, "look", 1)
        except Exception as error:  # whatever it was, the next look may find it gone
            self._lose(error)
        else:
            self._find()

    def _find(self) -> None:
        self._late_calls = 0
        if not self.connected:
            self.connected = True
            _log.info("Redis is back; limits hold for all processes together")

    async def _ping(self) -> None:
        """All nodes of a cluster have to answer: with one of them away, each call that needs it would lose it anew."""
        if isinstance(self._client, RedisCluster):
            await self._client.ping(target_nodes=RedisCluster.PRIMARIES)
        else:
            await self._client.ping()


def _open_storage(url: str) -> RedisStorage:
    """A storage that makes one attempt a command: its client's own retries would hold a call for seconds."""
    options: dict[str, Any] = {
        "implementation": "redispy",
        "key_prefix": _PREFIX,
        "socket_timeout": None,  # each call has a bound of its own
        "socket_connect_timeout": LOOK_SECONDS,
        "protocol": 2,
    }
    try:
        if url.startswith(_CLUSTER_SCHEME):
            return _open_cluster(url, options)
        return RedisStorage(f"async+{url}", **options | {"retry": Retry(NoBackoff(), 0)})
    except Exception:  # its text may hold a part of the password
        raise ValueError("REDIS_URL is malformed") from None


def _open_cluster(url: str, options: dict[str, Any]) -> RedisStorage:
    parts = urlsplit(url)
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    if not all(host.hostname for host in hosts):
        raise ValueError
    nodes = ",".join(f"{host.hostname}:{host.port or _DEFAULT_PORT}" for host in hosts)
    options |= {"retry": Retry(NoBackoff(), 1)}  # one: a slot that has moved is found at its new node
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            options[name] = unquote(value)
    return RedisClusterStorage(f"async+{_CLUSTER_SCHEME}{nodes}", **options)
