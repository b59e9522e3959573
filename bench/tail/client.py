"""The load, as a program of its own: asks a gateway by gRPC as its plan says, and notes what became of each request.

`python -m bench.tail.client FILE` reads a Plan as JSON from stdin, prints a line when the load begins, and writes the
answers as JSON to the file, in order of their coming. Not to stdout: a long write to a pipe is cut short under uvloop.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio
import uvloop
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from ion.llm.v1 import llm_pb2, llm_pb2_grpc

CHANNELS: Final = 4
TIMEOUT_SECONDS: Final = 30.0
# A repeat is of what was asked so long ago: longer than any model call of the law takes.
ANSWERED_SECONDS: Final = 5.5
REPEATED_SECONDS: Final = 20.0
INSTRUCTION: Final = (
    "You are Lua, a warm and calm companion. Answer in the language of the message, in two to four short sentences. "
    "Say first what you have understood, then offer one small next step. No lists, no headings, no advice on health."
)


@dataclass(frozen=True)
class Plan:
    """What to ask: `count` requests, `rate` a second at times drawn from `seed` whether or not others are answered (0:
    all at once), or by `callers` that each ask again when they are answered."""

    target: str
    count: int
    key: str  # requests of the same key and number are equal
    rate: float = 0.0
    callers: int = 0
    seed: int = 0
    method: str = "Generate"
    repeat_share: float = 0.0  # of requests that ask what was answered some seconds ago
    pool: int = 0  # draws the numbers from so many; 0: each its own


class Answer(NamedTuple):
    """What became of a request. `due` counts from the start, `seconds` and `first` (to the first text of a stream, else
    None) from when it was due. `outcome` is "OK" or the name of the status, "+RetryInfo" where it has that."""

    due: float
    seconds: float
    first: float | None
    outcome: str
    cache: str
    hedges: int


def schedule(plan: Plan) -> Iterator[tuple[float, int]]:
    """When each request is due, and its number."""
    times, choice = random.Random(f"times {plan.seed}"), random.Random(f"repeats {plan.seed}")
    asked: list[tuple[float, int]] = []
    due = 0.0
    for number in range(plan.count):
        due += times.expovariate(plan.rate) if plan.rate else 0.0
        if plan.pool:
            yield due, choice.randrange(plan.pool)
            continue
        asked = [(at, earlier) for at, earlier in asked if at > due - REPEATED_SECONDS] if plan.repeat_share else []
        answered = [earlier for at, earlier in asked if at < due - ANSWERED_SECONDS]
        if answered and choice.random() < plan.repeat_share:
            yield due, choice.choice(answered)
        else:
            asked.append((due, number))
            yield due, number


class Caller:
    def __init__(self, plan: Plan, channels: list[grpc.aio.Channel]) -> None:
        self._plan = plan
        stubs = [llm_pb2_grpc.LlmGatewayServiceStub(channel) for channel in channels]
        self._streams = plan.method == "StreamGenerate"
        self._methods: list[Any] = [stub.StreamGenerate if self._streams else stub.Generate for stub in stubs]
        self._message = llm_pb2.StreamGenerateRequest if self._streams else llm_pb2.GenerateRequest
        self._now = asyncio.get_running_loop().time
        self.answers: list[Answer] = []

    def request(self, number: int) -> Any:
        turn = llm_pb2.Content(
            role=llm_pb2.ROLE_USER, text=f"I am stuck on step {number} of the plan {self._plan.key}."
        )
        return self._message(prompt=llm_pb2.Prompt(system_instruction=INSTRUCTION, contents=[turn]), persona="lua")

    async def ask(self, index: int, number: int, due: float, started: float) -> None:
        first, generation, outcome = None, llm_pb2.Generation(), "OK"
        call = self._methods[index % CHANNELS](self.request(number), timeout=TIMEOUT_SECONDS)
        try:
            if self._streams:
                async for event in call:
                    first = self._now() - due if first is None else first
                    generation = event.generation
            else:
                generation = (await call).generation
        except grpc.aio.AioRpcError as error:
            outcome = name_of(error)
        cache = llm_pb2.CacheStatus.Name(generation.cache).removeprefix("CACHE_STATUS_")
        self.answers.append(Answer(due - started, self._now() - due, first, outcome, cache, generation.hedges))


def name_of(error: grpc.aio.AioRpcError) -> str:
    status = rpc_status.from_call(error)
    details = status.details if status else ()
    has_retry_info = any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
    return str(error.code().name) + ("+RetryInfo" if has_retry_info else "")


async def ask_on_time(caller: Caller, scheduled: Iterable[tuple[float, int]]) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    async with asyncio.TaskGroup() as group:
        for index, (at, number) in enumerate(scheduled):
            if (wait := started + at - loop.time()) > 0:
                await asyncio.sleep(wait)
            group.create_task(caller.ask(index, number, started + at, started))


async def ask_in_turn(caller: Caller, scheduled: Iterable[tuple[float, int]], callers: int) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    requests = enumerate(scheduled)

    async def work() -> None:
        for index, (_, number) in requests:
            await caller.ask(index, number, loop.time(), started)

    await asyncio.gather(*(work() for _ in range(callers)))


async def run(plan: Plan) -> list[Answer]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(plan.target, options=options) for _ in range(CHANNELS)]
    await asyncio.gather(*(channel.channel_ready() for channel in channels))
    caller, scheduled = Caller(plan, channels), list(schedule(plan))
    gc.freeze()
    sys.stdout.write("started\n")
    sys.stdout.flush()
    if plan.callers:
        await ask_in_turn(caller, scheduled, plan.callers)
    else:
        await ask_on_time(caller, scheduled)
    await asyncio.gather(*(channel.close() for channel in channels))
    return caller.answers


def main() -> None:
    plan = Plan(**json.loads(sys.stdin.read()))
    Path(sys.argv[1]).write_text(json.dumps(uvloop.run(run(plan))), "utf-8")


if __name__ == "__main__":
    main()
