"""Runs the HTTP interface on uvicorn, in the event loop of whoever calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import grpc.aio
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from chassis.caller import Door
from chassis.observability.process_metrics import measuring_lag
from chassis.server import settle
from gateway_http import exchange
from gateway_http.app import build_app
from gateway_http.health import HealthMonitor
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings

MAX_HEAD_BYTES: Final = 64 << 10
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's protocol, which would keep the head of a request however long it is."""

    _head_bytes = 0  # of a head that has not ended
    _is_in_head, _has_moved_on = True, False

    def data_received(self, data: bytes) -> None:
        self._has_moved_on = False
        super().data_received(data)
        if not self._is_in_head or self._has_moved_on:
            self._head_bytes = 0  # what of the data belongs to a next head is not told, and is not much
            return
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        self._is_in_head, self._has_moved_on = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._is_in_head = self._has_moved_on = True
        super().on_message_complete()


class _Server(uvicorn.Server):
    """uvicorn without signal handlers: ION's own decide when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    settings: HttpSettings,
    listener: socket.socket,
    router_channel: grpc.aio.Channel,
    llm_channel: grpc.aio.Channel,
    stopping: asyncio.Event,
    door: Door,
    *,
    router_target: str = "",
) -> None:
    """Serve until `stopping`, then report not ready, wait for load balancers to notice, and let requests end."""
    monitor = HealthMonitor(router_channel, llm_channel)
    app, state = build_app(settings, RouterClient(router_channel, target=router_target), monitor, door)
    config = uvicorn.Config(
        app,
        loop="none",
        http=BoundedHeads,
        ws="none",
        lifespan="off",
        access_log=False,
        proxy_headers=False,  # nobody in front is trusted with the client's address
        log_config=None,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=max(1, round(settings.grace_seconds)),
    )
    server = _Server(config)
    exchange.observe()
    async with monitor.polling(), measuring_lag():
        settle()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await asyncio.wait([serving, asyncio.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
        state.draining = True
        await asyncio.sleep(settings.drain_seconds)
        server.should_exit = True
        await serving
