"""The four kinds of client behind one async face, so that one test holds for all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import ion_client

KINDS = ("sync grpc", "sync http", "async grpc", "async http")


def connected(kind: str, *, grpc: str, http: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """A client of that kind, for a gRPC target and an HTTP address, each `host:port`."""
    way, transport = kind.split()
    options = {"user_id": "somebody"} | options
    scheme = transport if options.get("tls") is None else f"{transport}s"
    url = f"{scheme}://{grpc if transport == 'grpc' else http}"
    return threaded(url, options) if way == "sync" else ion_client.connect_async(url, **options)


@asynccontextmanager
async def threaded(url: str, options: dict[str, Any]) -> AsyncIterator[Threaded]:
    with ion_client.connect(url, **options) as client:
        yield Threaded(client)


class Threaded:
    """A sync client whose calls run in threads."""

    def __init__(self, client: ion_client.Client) -> None:
        self.sync = client

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **fields: Any) -> Any:
            return await asyncio.to_thread(getattr(self.sync, name), *args, **fields)

        return call

    async def close(self) -> None:
        self.sync.close()

    def stream(self, *args: Any, **fields: Any) -> ThreadedStream:
        return ThreadedStream(self.sync.stream(*args, **fields))

    def sessions(self, **fields: Any) -> AsyncIterator[Any]:
        return drawn(self.sync.sessions(**fields))

    def turns(self, *args: Any, **fields: Any) -> AsyncIterator[Any]:
        return drawn(self.sync.turns(*args, **fields))

    def export_session(self, *args: Any, **fields: Any) -> AsyncIterator[Any]:
        return drawn(self.sync.export_session(*args, **fields))


class ThreadedStream:
    def __init__(self, stream: ion_client.ReplyStream) -> None:
        self.sync = stream

    async def __aenter__(self) -> ThreadedStream:
        await asyncio.to_thread(self.sync.__enter__)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await asyncio.to_thread(self.sync.__exit__, *error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sync, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return drawn(iter(self.sync))

    def events(self) -> AsyncIterator[Any]:
        return drawn(self.sync.events())

    async def read(self) -> ion_client.Reply:
        return await asyncio.to_thread(self.sync.read)


async def drawn(items: Iterator[Any]) -> AsyncIterator[Any]:
    """Each item from a thread."""
    end = object()
    try:
        while (item := await asyncio.to_thread(next, items, end)) is not end:
            yield item
    finally:
        await asyncio.to_thread(items.close)
