"""A turn that was acknowledged stays, whole, though all processes are killed at any moment."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from dataclasses import dataclass, field

import grpc.aio
import pytest

from tests.postgres import Postgres
from tests.stack.conversing import STORED, Session, router_of
from tests.stack.harness import SHAPES, Chain, until, vertex_env

KILLS = 2
SESSIONS = 6
TURNS_BEFORE_THE_KILL = 25


@dataclass
class Load:
    """Sessions that chat without a pause, each a numbered message at a time. What is acknowledged is noted."""

    acknowledged: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    said: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def count(self) -> int:
        return sum(map(len, self.acknowledged.values()))

    async def run(self, session: Session) -> None:
        """Until nobody answers any more."""
        said, acknowledged = self.said[session.session_id], self.acknowledged[session.session_id]
        while True:
            message = f"{session.session_id}: message {len(said)}"
            said.append(message)
            try:
                answer = await session.chat(message)
            except grpc.aio.AioRpcError:
                return
            assert answer.history == STORED
            acknowledged.append(message)


def reply_to(message: str) -> str:
    return f"You said: {message}. " + "And this is what I think of it. " * 20


async def chat_until_killed(chain: Chain, load: Load) -> None:
    wanted = load.count() + TURNS_BEFORE_THE_KILL
    async with router_of(chain) as stub:
        sessions = [Session(stub, f"session {number}") for number in range(SESSIONS)]
        chatting = asyncio.gather(*map(load.run, sessions))

        async def is_enough() -> bool:
            return load.count() >= wanted or chatting.done()

        await until(is_enough)
        for process in chain.processes.values():
            process.signal(signal.SIGKILL)
        await chatting
        for process in chain.processes.values():
            await process.ended()


async def check(chain: Chain, load: Load) -> None:
    """Every acknowledged turn is there, in order and whole, and nothing that was not said; the counts agree."""
    async with router_of(chain) as stub:
        await until(Session(stub, "first").is_kept)
        for session_id, acknowledged in load.acknowledged.items():
            session = Session(stub, session_id)
            turns = await session.turns()
            messages = [turn.message for turn in turns]
            assert [message for message in messages if message in acknowledged] == acknowledged
            assert not set(messages) - set(load.said[session_id])
            assert len(messages) == len(set(messages)) == (await session.get()).turns
            for turn in turns:
                assert turn.reply == reply_to(turn.message)
                assert turn.persona
                assert turn.resonance_key.count("-") == 2
                assert turn.model


@pytest.fixture
def state(tmp_path, postgres_server: Postgres) -> dict[str, dict[str, str]]:
    """By shape, where conversations outlast their processes."""
    return {
        "standalone": {"ION_STATE_DIR": str(tmp_path)},
        "three processes": {"DATABASE_URL": postgres_server.new_database()},
    }


@pytest.mark.parametrize("shape", SHAPES)
async def test_what_was_acknowledged_is_there_after_a_kill(shape, state, vertex):
    vertex.answer(lambda request: reply_to(request.contents[-1].parts[0].text))
    env = vertex_env({"us-central1": vertex.endpoint}, ION_DATABASE_TIMEOUT_SECONDS="20") | state[shape]
    load = Load()
    for _ in range(KILLS):
        async with SHAPES[shape](env) as chain:
            await check(chain, load)
            await chat_until_killed(chain, load)
    async with SHAPES[shape](env) as chain:
        await check(chain, load)
    assert load.count() >= KILLS * TURNS_BEFORE_THE_KILL
