"""Runs the HTTP interface on uvicorn, in the event loop of whoever calls."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import grpc.aio
import uvicorn

from chassis.caller import Door
from chassis.server import settle
from gateway_http.app import build_app
from gateway_http.health import HealthMonitor
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings


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
) -> None:
    """Serve until `stopping`, then report not ready, wait for load balancers to notice, and let requests end."""
    monitor = HealthMonitor(router_channel, llm_channel)
    app, state = build_app(settings, RouterClient(router_channel), monitor, door)
    config = uvicorn.Config(
        app,
        loop="none",
        http="httptools",
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
    async with monitor.polling():
        settle()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await asyncio.wait([serving, asyncio.create_task(stopping.wait())], return_when=asyncio.FIRST_COMPLETED)
        state.draining = True
        await asyncio.sleep(settings.drain_seconds)
        server.should_exit = True
        await serving
