"""What single steps cost, in microseconds: medians, of seven repeats where nothing else is said."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import uvloop

from bench import reader as reading
from bench.reader import ENGLISH, KOREAN, REPEATS
from chassis.deadline import Deadline
from chassis.local_channel import LocalServer
from chassis.observability import logs, tracing
from chassis.server import CallGuard, new_server
from chassis.settings import Settings, load
from gateway_http.app import build_app
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2
from llm_gateway.admission import Admission
from llm_gateway.backends.offline import OfflineBackend
from llm_gateway.cache import ResponseCache
from llm_gateway.catalogue import Catalogue
from llm_gateway.completion import Completion
from llm_gateway.locations import Locations
from llm_gateway.means import Means
from llm_gateway.model_calls import ModelCalls
from llm_gateway.redis_store import NoStore
from llm_gateway.service import LlmGatewayServicer
from router_service import translation
from router_service.analysis import Reader
from router_service.llm_client import generation_request
from router_service.personas import DEFAULT_DIRECTORY, load_personas
from router_service.prompts import instructions
from router_service.reading import Reading
from router_service.routing import choose, choose_all, signals_of


def measure() -> dict[str, float]:
    """Microseconds by step."""
    return reading.measure() | _pure() | _logging() | uvloop.run(_with_loop())


def _pure() -> dict[str, float]:
    table, reader = load_personas(DEFAULT_DIRECTORY), Reader.load()
    read = reader.read
    signals = signals_of(read(ENGLISH), ENGLISH)
    batch = [signals] * 100

    def analyse_and_route(message: str) -> Callable[[], object]:
        return lambda: choose(signals_of(read(message), message), table)

    def with_evidence(message: str) -> None:
        analysis = reader.read(message, 3)
        choose(signals_of(analysis, message), table)

    return {
        "choose one": _time(lambda: choose(signals, table)),
        "choose 100 at once, each": _time(lambda: choose_all(batch, table), number=50) / 100,
        "analysis + routing, English": _time(analyse_and_route(ENGLISH)),
        "analysis + routing, Korean": _time(analyse_and_route(KOREAN)),
        "the same with evidence, English": _time(lambda: with_evidence(ENGLISH)),
        "the same with evidence, Korean": _time(lambda: with_evidence(KOREAN)),
        "prompt": _time(lambda: instructions(table.personas[0], "calm-medium-inquiry", "en")),
    }


def _logging() -> dict[str, float]:
    """The line of a request: processor time of who tells it, and of the process until it is written."""
    number = 20_000
    settings = load(Settings, log_queue_records=number)
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        all_started = time.process_time()
        with logs.writing("bench", settings):
            tracing.enter(None, None)
            started = time.thread_time()
            for _ in range(number):
                logs.request(method="POST", route="/chat", status=200, duration_seconds=0.1, persona="Lua", cache="hit")
            told = time.thread_time() - started
        written = time.process_time() - all_started
    return {"one log record": 1e6 * told / number, "the same until it is written": 1e6 * written / number}


def _time(step: Callable[[], object], number: int = 2000) -> float:
    def repeat() -> float:
        started = time.perf_counter()
        for _ in range(number):
            step()
        return 1e6 * (time.perf_counter() - started) / number

    repeat()
    return statistics.median(repeat() for _ in range(REPEATS))


async def _time_async(step: Callable[[], Awaitable[object]], number: int = 1000) -> float:
    async def repeat() -> float:
        started = time.perf_counter()
        for _ in range(number):
            await step()
        return 1e6 * (time.perf_counter() - started) / number

    await repeat()
    return statistics.median([await repeat() for _ in range(REPEATS)])


async def _with_loop() -> dict[str, float]:
    servicer = _servicer()
    request = _request()
    results = {"LLM gateway, near-cache hit": await _time_async(lambda: servicer.Generate(request, _NoDeadline()))}
    results |= await _http()
    results["unary call, in process"], results["unary call, TCP"] = await _calls(servicer, request)
    return results


def _servicer() -> LlmGatewayServicer:
    backend, catalogue = OfflineBackend(), Catalogue.load()
    calls = ModelCalls(Means(backend, Locations(backend.locations)))
    cache = ResponseCache(NoStore(), ttl_seconds=3600, max_entries=100)
    completion = Completion(calls, cache, Admission(100, 100), catalogue=catalogue)
    return LlmGatewayServicer(completion, catalogue, offline=True, request_timeout_seconds=30)


def _request() -> llm_pb2.GenerateRequest:
    persona = load_personas(DEFAULT_DIRECTORY).personas[0]
    return generation_request(persona, instructions(persona, "calm-medium-inquiry", "en"), ENGLISH, "en")


class _NoDeadline:
    def time_remaining(self) -> None:
        return None


async def _calls(servicer: LlmGatewayServicer, request: llm_pb2.GenerateRequest) -> tuple[float, float]:
    import grpc.aio

    local, remote = LocalServer([CallGuard()]), new_server()
    for server in (local, remote):
        llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(servicer, server)
    port = remote.add_insecure_port("127.0.0.1:0")
    await remote.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        here = llm_pb2_grpc.LlmGatewayServiceStub(local.channel())
        there = llm_pb2_grpc.LlmGatewayServiceStub(channel)
        in_process = await _time_async(lambda: here.Generate(request, timeout=30))
        over_tcp = await _time_async(lambda: there.Generate(request, timeout=30))
    await remote.stop(None)
    return in_process, over_tcp


class _CannedRouter(RouterClient):
    """Answers at once, so that what remains is the gateway's own work."""

    def __init__(self, answer: router_pb2.ChatResponse, routed: router_pb2.RouteResponse) -> None:
        self._answer, self._routed = answer, routed

    async def chat(self, request: router_pb2.ChatRequest, deadline: Deadline) -> router_pb2.ChatResponse:
        return self._answer

    async def route(self, request: router_pb2.RouteRequest, deadline: Deadline) -> router_pb2.RouteResponse:
        return self._routed


async def _http() -> dict[str, float]:
    app = await _gateway()
    return {
        "/chat decoded, validated, encoded": await _time_async(_exchange(app, "/chat", {"user_id": "u"})),
        "/route decoded, validated, encoded": await _time_async(_exchange(app, "/route", {})),
    }


async def _gateway() -> Any:
    table, analyser = load_personas(DEFAULT_DIRECTORY), Reader.load()
    analysis = analyser.read(ENGLISH, evidence=3)
    reading = Reading(signals_of(analysis, ENGLISH), analysis, router_pb2.READ_BY_READER)
    routing = choose(reading.signals, table)
    reply = await _servicer().Generate(_request(), _NoDeadline())
    answer = translation.answer(routing, reading, table, reply)
    unused: Any = None
    router = _CannedRouter(answer, translation.route_response(routing, reading, table))
    app, _ = build_app(load(HttpSettings), router, unused)
    return app


def _exchange(app: Any, path: str, more: dict[str, str]) -> Callable[[], Awaitable[None]]:
    """Posts the English message there."""
    body = json.dumps({"message": ENGLISH, **more}).encode()
    never = asyncio.Event()

    async def exchange() -> None:
        parts = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            part = next(parts, None)
            if part is None:
                await never.wait()
            return part

        async def send(_message: Any) -> None:
            pass

        scope: Any = _scope(path, len(body))
        await app(scope, receive, send)

    return exchange


def _scope(path: str, length: int) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "state": {},
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", str(length).encode()),
        ],
    }
