"""The measurements of the front door."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass, field
from typing import Final

import grpc.aio
from google.cloud.aiplatform_v1.types import prediction_service

from bench import chains, load
from bench.cells import Cell
from bench.front.client import Connection, connected
from tests.postgres import postgres

CALLERS: Final = 64
MODEL_MS: Final = 500
FIRST_TOKEN_MS: Final = 50
STREAMS: Final = 1000
_STREAM_GENERATE: Final = "/google.cloud.aiplatform.v1.PredictionService/StreamGenerateContent"


def cached(rounds: int, seconds: float) -> list[Cell]:
    """A cached chat without a session, of one process, beside the empty chain of three: as fast as they go."""
    cells = [Cell(name, load.Demand(count)) for count in (1, 16) for name in ("empty chain", "standalone")]
    with load.sample_bodies(distinct=False) as bodies, ExitStack() as stack:
        running = {
            "empty chain": stack.enter_context(chains.bare(x_cache="hit")),
            "standalone": stack.enter_context(chains.standalone()),
        }
        for chain in running.values():
            load.run(chain, bodies, demand=load.Demand(4), x_cache="hit", seconds=2)
        for _ in range(rounds):
            for cell in cells:
                run = load.run(running[cell.chain], bodies, demand=cell.demand, x_cache="hit", seconds=seconds)
                cell.runs.append(run)
    return cells


@dataclass
class Talk:
    """Chats of 64 callers, each on a connection of its own; the model takes half a second."""

    seconds: list[float] = field(default_factory=list)
    history: Counter[str] = field(default_factory=Counter)  # what the answers say of it; "-" for nothing
    cpu_ms: list[float] = field(default_factory=list)  # of ION's processes a chat, by round

    def percentile(self, percent: int) -> float:
        """In milliseconds."""
        return 1000 * statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


def conversations(rounds: int, chats: int) -> dict[str, Talk]:
    """The same callers without and with a session on PostgreSQL, in turn; `chats` of each caller a round."""
    talks = {"no session": Talk(), "session on PostgreSQL": Talk()}
    with postgres() as server, chains.fake_vertex(MODEL_MS) as env:
        settings = env | {"DATABASE_URL": server.new_database()}
        with chains.three(settings) as chain:
            for number in range(rounds + 1):
                for name, talk in talks.items():
                    into = talk if number else Talk()  # the first round warms up
                    asyncio.run(_talk(chain, into, f"{name} {number}", chats, sessions=name != "no session"))
    return talks


async def _talk(chain: chains.Chain, talk: Talk, key: str, chats: int, *, sessions: bool) -> None:
    before = sum(chain.cpu_seconds().values())
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(connected(chain.url)) for _ in range(CALLERS)]
        await asyncio.gather(
            *(
                _converse(caller, talk, f"{key} {number}", chats, number / CALLERS, sessions=sessions)
                for number, caller in enumerate(callers)
            )
        )
    talk.cpu_ms.append(1000 * (sum(chain.cpu_seconds().values()) - before) / (CALLERS * chats))


async def _converse(caller: Connection, talk: Talk, key: str, chats: int, offset: float, *, sessions: bool) -> None:
    await asyncio.sleep(offset * MODEL_MS / 1000)  # people do not all speak at the same moment
    for number in range(chats):
        request = {"message": f"which index does query {number} of {key} use?"}
        if sessions:
            request |= {"session_id": key, "user_id": "bench"}
        seconds, answer = await caller.post("/chat", request)
        talk.seconds.append(seconds)
        talk.history[answer["metadata"].get("history", "-")] += 1


@dataclass
class FirstTokens:
    """Milliseconds to the first text of one stream at a time: asked of the model itself, and through ION."""

    direct: list[float] = field(default_factory=list)
    ours: dict[str, list[float]] = field(default_factory=dict)


def first_tokens(streams: int) -> FirstTokens:
    found = FirstTokens()
    with chains.fake_vertex(FIRST_TOKEN_MS) as env, ExitStack() as stack:
        running = {
            "standalone": stack.enter_context(chains.standalone(env)),
            "three processes": stack.enter_context(chains.three(env)),
        }
        asyncio.run(_first_tokens(env, running, found, streams))
    return found


async def _first_tokens(
    env: dict[str, str], running: dict[str, chains.Chain], found: FirstTokens, streams: int
) -> None:
    endpoint = env["ION_VERTEX_ENDPOINTS"].partition("=")[2]
    found.ours = {name: [] for name in running}
    async with grpc.aio.insecure_channel(endpoint) as channel:
        for number in range(-5, streams):
            direct = 1000 * await _ask_model(channel, f"direct {number}")
            ours = {name: 1000 * await _ask_ion(chain.url, f"{name} {number}") for name, chain in running.items()}
            if number >= 0:  # the first ones warm up
                found.direct.append(direct)
                for name, milliseconds in ours.items():
                    found.ours[name].append(milliseconds)


async def _ask_model(channel: grpc.aio.Channel, text: str) -> float:
    call = channel.unary_stream(
        _STREAM_GENERATE,
        request_serializer=prediction_service.GenerateContentRequest.serialize,
        response_deserializer=prediction_service.GenerateContentResponse.deserialize,
    )
    request = prediction_service.GenerateContentRequest(
        model="projects/emulator/locations/us-central1/publishers/google/models/gemini-3.5-flash",
        contents=[{"role": "user", "parts": [{"text": text}]}],
    )
    started = time.perf_counter()
    stream = call(request, timeout=30)
    await stream.read()
    seconds = time.perf_counter() - started
    stream.cancel()
    return seconds


async def _ask_ion(url: str, text: str) -> float:
    async with connected(url) as caller:
        return await caller.open_stream("/chat", {"message": text}, b"event: delta")


@dataclass(frozen=True)
class OpenStreams:
    """Resident megabytes of each process, before and while they are open."""

    streams: int
    before_mb: dict[str, float]
    resident_mb: dict[str, float]


def open_streams(streams: int = STREAMS) -> dict[str, OpenStreams]:
    """That many at once, routed and waiting for a slow model, of one process and of three."""
    found = {}
    with chains.fake_vertex(30_000) as env:
        for name, opened in (("standalone", chains.standalone), ("three processes", chains.three)):
            with opened(env) as chain:
                before = chain.resident_mb()
                found[name] = OpenStreams(streams, before, asyncio.run(_hold(chain, streams)))
    return found


async def _hold(chain: chains.Chain, streams: int) -> dict[str, float]:
    """Megabytes once all are open."""
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(connected(chain.url)) for _ in range(streams)]
        opening = (
            caller.open_stream("/chat", {"message": f"stream {number}"}, b"event: routing")
            for number, caller in enumerate(callers)
        )
        await asyncio.gather(*opening)
        return chain.resident_mb()
