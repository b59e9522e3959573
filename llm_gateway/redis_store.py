"""Redis as the cache that replicas share. It is optional and never waited for.

A request waits WAIT_SECONDS at most, and then goes on without; where Redis has been later than that twice in a row,
requests do not wait at all until it is in time again. Commands unanswered for ANSWER_SECONDS, or a broken connection,
declare Redis away: from then on no request touches it, until a look in the background finds that it answers again. A
command that Redis answers with an error is refused, and no more: Redis is still there.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import nullcontext, suppress
from itertools import zip_longest
from typing import Any, Final, Protocol
from urllib.parse import unquote, urlsplit

from redis import exceptions as redis_errors
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from chassis.observability.databases import Question, Server

WAIT_SECONDS: Final = 0.005
ANSWER_SECONDS: Final = 0.250
LOOK_SECONDS: Final = 1.0  # for one look, handshake included, and between looks while connected
FIRST_PAUSE_SECONDS: Final = 0.1  # between looks while away, doubling
LONGEST_PAUSE_SECONDS: Final = 2.0
LATE_BATCHES: Final = 2  # in a row, until nobody waits
_SYSTEM: Final = "redis"
_UNNAMED: Final = Server(_SYSTEM)
_CLUSTER_SCHEME: Final = "redis+cluster://"
_DEFAULT_PORT: Final = 6379
# What a node of a cluster that is away leaves in the place of an answer.
_LOST: Final = (redis_errors.ConnectionError, redis_errors.TimeoutError, redis_errors.ClusterError)

_log = logging.getLogger(__name__)

OnState = Callable[[bool], Awaitable[None]]


class Store(Protocol):
    """Commands to what replicas share. No method raises, but for the cancellation of who waits."""

    @property
    def enabled(self) -> bool: ...

    @property
    def connected(self) -> bool: ...

    @property
    def late(self) -> int:
        """Answers that were not waited for any longer, since the start."""
        ...

    @property
    def refusals(self) -> int:
        """Commands that were answered with an error, since the start."""
        ...

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """Its answer once it is there, an error among them, or None where it is lost. Commands arrive in order."""
        ...

    async def in_time(
        self, answer: asyncio.Future[Any], *, wait_seconds: float | None = None, question: str = ""
    ) -> Any:
        """The answer where it comes within `wait_seconds`, by default the store's own, which a slow store loses; else
        None, as for an error. The command may still be on its way then. `question`: the command and what it is for,
        where telemetry is to tell of it."""
        ...

    def watch(self, *command: Any, on_answer: Callable[[Any], None]) -> None:
        """Send the command now, with each look and before all else after an absence."""
        ...

    async def close(self) -> None: ...


class NoStore:
    """No store: nothing is shared."""

    enabled = False
    connected = False
    late = 0
    refusals = 0

    def send(self, *command: Any) -> asyncio.Future[Any]:
        return _none()

    async def in_time(
        self, answer: asyncio.Future[Any], *, wait_seconds: float | None = None, question: str = ""
    ) -> Any:
        return None

    def watch(self, *command: Any, on_answer: Callable[[Any], None]) -> None:
        """Has nothing to say."""

    async def close(self) -> None:
        """Holds nothing."""


def _trouble_of(answer: asyncio.Future[Any]) -> str:
    """Why there is no answer; "" where there is one."""
    if not answer.done():
        return "late"
    if isinstance(answer.result(), Exception):
        return "refused"
    return "lost" if answer.result() is None else ""


def _none() -> asyncio.Future[Any]:
    nothing: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    nothing.set_result(None)
    return nothing


async def _ignore_state(_connected: bool) -> None:
    """For those who need not know."""


class RedisStore:
    """See the module. `open` it; `on_state` is told at the start and with each change of `connected`."""

    enabled = True

    def __init__(
        self,
        client: Any,
        *,
        server: Server = _UNNAMED,
        wait_seconds: float = WAIT_SECONDS,
        on_state: OnState = _ignore_state,
    ) -> None:
        self._client = client
        self._server = server
        self._wait_seconds = wait_seconds
        self._on_state = on_state
        self._queue: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._watches: list[tuple[tuple[Any, ...], Callable[[Any], None]]] = []
        self._late_batches = 0  # in a row
        self._sender: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._said_refused = False
        self._is_closing = False
        self.connected = True  # until the first look says otherwise: so that an absence is said
        self.refusals = 0
        self.late = 0

    @classmethod
    async def open(
        cls, url: str, *, wait_seconds: float = WAIT_SECONDS, on_state: OnState = _ignore_state
    ) -> RedisStore:
        """A store that has looked once whether Redis is there; it may not be. Raises ValueError for a malformed URL."""
        client = _new_client(url)
        store = cls(client, server=Server.of_url(_SYSTEM, url), wait_seconds=wait_seconds, on_state=on_state)
        await on_state(store.connected)
        await store._look()
        store._start(store._keep_looking())
        return store

    def send(self, *command: Any) -> asyncio.Future[Any]:
        """As in Store. The commands of one turn of the event loop, and those that gather while others are under way,
        travel together: one pipeline at a time, on one connection."""
        if not self.connected:
            return _none()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((command, answer))
        if self._sender is None:
            self._sender = self._start(self._send_queue())
        return answer

    async def in_time(
        self, answer: asyncio.Future[Any], *, wait_seconds: float | None = None, question: str = ""
    ) -> Any:
        """As in Store. While Redis is away nothing is asked, and telemetry tells of no question."""
        if wait_seconds is None:
            wait_seconds = 0.0 if self._late_batches >= LATE_BATCHES else self._wait_seconds
        is_told = question and not answer.done()
        with Question(self._server, question) if is_told else nullcontext() as told:
            await asyncio.wait((answer,), timeout=wait_seconds)
            if told and (trouble := _trouble_of(answer)):
                told.fail(trouble, is_error=answer.done())  # one that is late is done without, as it is meant to be
        if not answer.done():
            self.late += 1
            return None
        result = answer.result()
        return None if isinstance(result, Exception) else result

    def watch(self, *command: Any, on_answer: Callable[[Any], None]) -> None:
        """As in Store."""
        self._watches.append((command, on_answer))
        self._ask_watch(command, on_answer)

    def _ask_watch(self, command: tuple[Any, ...], on_answer: Callable[[Any], None]) -> None:
        def tell(asked: asyncio.Future[Any]) -> None:
            answer = asked.result()
            if answer is not None and not isinstance(answer, Exception):
                on_answer(answer)

        self.send(*command).add_done_callback(tell)

    async def close(self) -> None:
        """What was sent before still arrives, where Redis is in time."""
        if self._sender is not None:
            await asyncio.wait((self._sender,), timeout=self._wait_seconds)
        self.connected = False
        self._is_closing = True  # a cluster's client may answer a cancellation with an error of its own
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(Exception):  # nothing is left to be lost
            async with asyncio.timeout(LOOK_SECONDS):
                await self._client.aclose()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _send_queue(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue, []
                sent_at = time.monotonic()
                answers = await self._send([command for command, _ in batch]) if self.connected else []
                is_late = time.monotonic() - sent_at > self._wait_seconds
                self._late_batches = self._late_batches + 1 if is_late else 0
                for (_, future), answer in zip_longest(batch, answers):
                    future.set_result(answer)
        finally:
            self._sender = None

    async def _send(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """The answers in order, errors among them; none where Redis is lost."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                pipeline = self._client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # clients raise more than RedisError when a connection breaks
            await self._lose(error)
            return []
        for answer in answers:
            if isinstance(answer, Exception):
                await self._notice(answer)
        return answers

    async def _notice(self, error: Exception) -> None:
        self.refusals += 1
        if isinstance(error, _LOST):
            await self._lose(error)
        elif not self._said_refused:
            self._said_refused = True
            _log.warning("Redis refuses commands; not all replies are shared", extra={"cause": type(error).__name__})

    async def _keep_looking(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._is_closing:
            await asyncio.sleep(LOOK_SECONDS if self.connected else pause * random.uniform(0.5, 1.0))
            pause = FIRST_PAUSE_SECONDS if self.connected else min(2 * pause, LONGEST_PAUSE_SECONDS)
            await self._look()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                if not self.connected:
                    await _drop_connections(self._client)
                await _ping(self._client)
        except Exception as error:  # whatever it was, the next look may find it gone
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
        was_connected, self.connected = self.connected, True
        for command, on_answer in self._watches:
            self._ask_watch(command, on_answer)
        if not was_connected:
            self._said_refused = False
            _log.info("Redis is connected again")
            await self._on_state(True)


def _new_client(url: str) -> Any:
    """A client that makes one attempt a command: its own retries would hold a request for seconds."""
    options: dict[str, Any] = {
        "socket_timeout": None,  # each batch has a bound of its own, which costs less than one for each answer
        "socket_connect_timeout": LOOK_SECONDS,
        "protocol": 2,  # what every Redis-protocol server speaks; RESP3 brings nothing to GET and SET
    }
    try:
        if url.startswith(_CLUSTER_SCHEME):
            return _new_cluster_client(url, options)
        return Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)
    except ValueError:  # its text may hold a part of the password
        raise ValueError(
            "REDIS_URL is malformed: must be redis://[user:password@]host[:port][/database], the same with rediss://, "
            "or redis+cluster://[user:password@]host:port[,host:port]"
        ) from None


def _new_cluster_client(url: str, options: dict[str, Any]) -> Any:
    parts = urlsplit(url)
    hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
    if not all(host.hostname for host in hosts):
        raise ValueError(url)
    return RedisCluster(
        startup_nodes=[ClusterNode(str(host.hostname), host.port or _DEFAULT_PORT) for host in hosts],
        username=parts.username and unquote(parts.username),
        password=parts.password and unquote(parts.password),
        retry=Retry(NoBackoff(), 1),  # one: a slot that has moved is found at its new node
        **options,
    )


async def _ping(client: Any) -> None:
    """All nodes of a cluster have to answer: with one of them away, each batch that needs it would be lost anew."""
    if isinstance(client, RedisCluster):
        await client.ping(target_nodes=RedisCluster.PRIMARIES)
    else:
        await client.ping()


async def _drop_connections(client: Any) -> None:
    """Connections from before an outage may hold replies that nobody waits for any more."""
    if isinstance(client, RedisCluster):
        await client.aclose()
    else:
        await client.connection_pool.disconnect(inuse_connections=False)
