"""Conversations that last: each turn knows those before it, whoever says so has stored it, and without the database the
chat goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import grpc
import grpc.aio
import pytest
import pytest_asyncio

from ion.router.v1 import router_pb2, router_pb2_grpc
from tests.fake_vertex import FakeVertex
from tests.postgres import Postgres, postgres
from tests.stack.conversing import SKIPPED, STORED, UNAVAILABLE, Session, router_of, told
from tests.stack.harness import SHAPES, Chain, Streamed, failure, read_text, until, vertex_env

LONG_SESSION = 10  # turns until the first summary, with ION_HISTORY_TURNS=1


@dataclass
class Kept:
    """A chain, the URL of its database, and its router."""

    chain: Chain
    url: str
    stub: router_pb2_grpc.PersonaRouterServiceStub


@pytest.fixture
def session(router_channel, unique) -> Session:
    return Session(router_pb2_grpc.PersonaRouterServiceStub(router_channel), unique("session"))


@pytest.fixture
def mina(unique) -> str:
    return unique("My name is Mina.")


async def test_a_turn_knows_what_was_said_before(session, vertex, mina):
    vertex.answer("Hello Mina!")
    first = await session.chat(mina)
    assert (first.history, first.session_id) == (STORED, session.session_id)
    assert told(vertex) == [("user", mina)]
    vertex.answer("You are Mina.")
    second = await session.chat("Who am I?")
    assert told(vertex) == [("user", mina), ("model", "Hello Mina!"), ("user", "Who am I?")]
    assert second.timings.history_micros > 0
    system = vertex.calls[-1].request.system_instruction.parts[0].text
    assert "Mina" not in system
    kept = [(turn.message, turn.reply) for turn in await session.turns()]
    assert kept == [(mina, "Hello Mina!"), ("Who am I?", "You are Mina.")]
    assert (await session.get()).turns == 2


async def test_a_streamed_turn_is_a_turn(session, vertex, mina):
    vertex.pieces(["Hello ", "Mina!"])
    streamed = await Streamed.read(session.stream(mina))
    assert (streamed.last.history, streamed.last.session_id) == (STORED, session.session_id)
    assert streamed.last.timings.history_micros > 0
    await session.chat("Who am I?")
    assert told(vertex)[:2] == [("user", mina), ("model", "Hello Mina!")]


async def test_without_a_session_nothing_is_kept_or_told(session, vertex, unique):
    answer = await session.stub.Chat(router_pb2.ChatRequest(message=unique("hello"), user_id=session.user_id))
    assert answer.history == router_pb2.HISTORY_STATUS_UNSPECIFIED
    assert answer.timings.history_micros == 0
    assert len(told(vertex)) == 1


async def test_whoever_answered_last_stays_between_near_equals(session, vertex, unique):
    """Riri answers it alone, and Elro is not far behind."""
    message = "I work in a bakery."
    fresh = Session(session.stub, unique("session"))
    assert (await fresh.chat(message)).routing.persona == "Riri"
    await session.chat(message, persona="Elro")
    routing = (await session.chat(message)).routing
    assert routing.persona == "Elro"
    assert [score.persona for score in routing.scores if score.session_bonus] == ["Elro"]
    assert (await session.chat(message, previous_persona="Riri")).routing.persona == "Riri"


async def test_another_user_neither_reads_nor_continues_it(session, vertex, mina, unique):
    await session.chat(mina)
    for user_id in ("somebody else", ""):
        other = Session(session.stub, session.session_id, user_id)
        message = unique("Who am I?")
        await other.chat(message)
        assert told(vertex) == [("user", message)]
        assert [turn.message for turn in await other.turns()] == [message]
        await other.delete()
        for read in (other.get, other.turns, other.delete):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read()
            assert failure(caught.value).reason_name == "SESSION_NOT_FOUND"
    assert [turn.message for turn in await session.turns()] == [mina]


async def test_one_owners_conversation_is_no_hit_for_another(session, vertex, unique):
    """Word for word the same, but somebody else's."""
    hello, again = unique("hello"), unique("and again")
    same = [session, Session(session.stub, session.session_id, "somebody else")]
    caches = [[(await one.chat(message)).generation.cache for message in (hello, again)] for one in same]
    assert caches[0][0] != caches[1][0]  # what rests on nobody's history is everybody's
    assert caches[0][1] == caches[1][1]


async def test_an_apology_is_no_turn(session, vertex, mina):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    answer = await session.chat(mina)
    assert (answer.fallback, answer.history) == (True, SKIPPED)
    streamed = await Streamed.read(session.stream(mina))
    assert (streamed.last.fallback, streamed.last.history) == (True, SKIPPED)
    with pytest.raises(grpc.aio.AioRpcError):
        await session.get()


@pytest.mark.parametrize("streamed", [False, True])
async def test_of_a_turn_that_its_caller_leaves_nothing_is_kept(session, vertex, mina, streamed):
    await session.chat(mina)
    vertex.hang()
    call = session.stream("Who am I?") if streamed else asyncio.ensure_future(session.chat("Who am I?"))
    await vertex.wait_for_calls(2)
    call.cancel()
    await vertex.wait_for_outcome("cancelled")
    vertex.behave()
    await session.chat("Are you there?")
    assert [turn.message for turn in await session.turns()] == [mina, "Are you there?"]


async def test_a_session_deleted_while_the_model_answers_is_not_brought_back(session, vertex, mina):
    await session.chat(mina)
    vertex.hang()
    answer = asyncio.ensure_future(session.chat("Who am I?"))
    await vertex.wait_for_calls(2)
    await session.delete()
    vertex.release()
    assert (await answer).history == SKIPPED
    with pytest.raises(grpc.aio.AioRpcError):
        await session.get()


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL that is killed."""
    with postgres() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=SHAPES)
async def kept(request: pytest.FixtureRequest, _vertex: FakeVertex, server: Postgres) -> AsyncIterator[Kept]:
    """A chain over that server; it is patient with it, and summarises early."""
    url = server.new_database()
    env = vertex_env(
        {"us-central1": _vertex.endpoint},
        DATABASE_URL=url,
        ION_DATABASE_TIMEOUT_SECONDS="20",
        ION_HISTORY_TURNS="1",
        ION_CACHE_MAX_ENTRIES="0",
    )
    async with SHAPES[request.param](env) as chain, router_of(chain) as stub:
        await until(Session(stub, "first").is_kept)
        yield Kept(chain, url, stub)


@pytest.fixture
def kept_session(kept: Kept, unique) -> Session:
    return Session(kept.stub, unique("session"))


@asynccontextmanager
async def nobody_writes(kept: Kept) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Until the block ends. Yields what says whether somebody waits for its end."""
    connection = await asyncpg.connect(kept.url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE turns IN EXCLUSIVE MODE")

            async def somebody_waits() -> bool:
                return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))

            yield somebody_waits
    finally:
        await connection.close()


async def test_a_stream_ends_once_its_turn_is_stored(kept, kept_session, vertex):
    assert (await kept_session.chat("My name is Mina.")).history == STORED
    vertex.pieces(["You are ", "Mina."])
    async with nobody_writes(kept) as somebody_waits:
        call = kept_session.stream("Who am I?")
        assert (await call.read()).HasField("routed")
        await read_text(call, "You are Mina.")
        rest = asyncio.ensure_future(Streamed.read(call))
        await until(somebody_waits)
        assert not rest.done()
    assert ((await rest).kinds, (await rest).last.history) == (["done"], STORED)
    assert [turn.reply for turn in await kept_session.turns()][-1] == "You are Mina."


async def test_an_answer_comes_once_its_turn_is_stored(kept, kept_session, vertex):
    await kept_session.chat("My name is Mina.")
    async with nobody_writes(kept) as somebody_waits:
        answer = asyncio.ensure_future(kept_session.chat("Who am I?"))
        await until(somebody_waits)
        assert not answer.done()
    assert (await answer).history == STORED


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_that_leaves_while_the_turn_is_being_stored_has_none(kept, kept_session, vertex, streamed):
    await kept_session.chat("My name is Mina.")
    async with nobody_writes(kept) as somebody_waits:
        if streamed:
            call = kept_session.stream("Who am I?")
            await call.read()
        else:
            call = asyncio.ensure_future(kept_session.chat("Who am I?"))
        await until(somebody_waits)
        call.cancel()

        async def nobody_waits() -> bool:
            return not await somebody_waits()

        await until(nobody_waits)
    assert [turn.message for turn in await kept_session.turns()] == ["My name is Mina."]


async def test_a_database_that_is_killed_midway_costs_the_memory_alone(kept, kept_session, vertex, server):
    assert (await kept_session.chat("My name is Mina.")).history == STORED
    server.kill()
    try:
        for answer in [await kept_session.chat("Who am I?") for _ in range(3)]:
            assert (answer.history, answer.fallback) == (UNAVAILABLE, False)
            assert answer.content
        streamed = await Streamed.read(kept_session.stream("And now?"))
        assert (streamed.last.history, streamed.last.fallback) == (UNAVAILABLE, False)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await kept_session.get()
        error = failure(caught.value)
        assert (error.reason_name, error.code) == ("DATABASE_UNAVAILABLE", grpc.StatusCode.UNAVAILABLE)
    finally:
        server.start()
    await until(kept_session.is_kept)
    assert ("user", "My name is Mina.") in told(vertex)
    assert [turn.message for turn in await kept_session.turns()] == ["My name is Mina.", "Are you there?"]


def keeps_notes(request) -> bool:
    return "keep the notes" in request.system_instruction.parts[0].text


async def test_a_long_session_is_summarised_by_the_model(kept, kept_session, vertex):
    vertex.answer(lambda request: "They like bread." if keeps_notes(request) else "Noted.")
    for number in range(LONG_SESSION):
        assert (await kept_session.chat(f"I like bread number {number}.")).history == STORED
        assert (await kept_session.get()).summary == ""

    async def is_summarised() -> bool:
        return (await kept_session.get()).summary == "They like bread."

    await until(is_summarised)
    asked = [call.request for call in vertex.calls if keeps_notes(call.request)]
    assert len(asked) == 1
    notes = [part.text for turn in asked[0].contents for part in turn.parts]
    assert notes[:2] == ["I like bread number 0.", "Noted."]
    assert not any("bread" in part.text for part in asked[0].system_instruction.parts)
    await kept_session.chat("What do I like?")
    summary, *others = told(vertex)
    assert (summary[0], summary[1].partition("\n\n")[2]) == ("user", "They like bread.")
    assert others == [("user", "I like bread number 9."), ("model", "Noted."), ("user", "What do I like?")]
    assert len(await kept_session.turns()) == LONG_SESSION + 1
