"""Streamed answers of the router's servicer, over TCP and in this process."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace

import grpc
import grpc.aio
import pytest

from chassis.errors import RULES, from_rpc
from chassis.local_channel import LocalChannel, LocalServer
from chassis.observability.tracing import REQUEST_ID_KEY
from chassis.server import CallGuard
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2_grpc
from ion.router.v1 import router_pb2
from router_service import turn
from tests.router_service.scripted_llm import GENERATION, ScriptedLlm
from tests.router_service.servicers import servicer_of

FRUSTRATED = "진짜 짜증나!! 왜 계속 안 돼!!"
ENDS_OF_A_CALL = (Reason.REASON_DEADLINE_EXCEEDED, Reason.REASON_CANCELLED)


def open_stream(router, message: str = FRUSTRATED, seconds: float = 10, **fields):
    request = router_pb2.ChatStreamRequest(message=message, **fields)
    return router.ChatStream(request, timeout=seconds, metadata=((REQUEST_ID_KEY, "req-7"),))


async def read(call, kind: str):
    """The next event, which is of that kind."""
    event = await asyncio.wait_for(call.read(), 5)
    assert event.WhichOneof("event") == kind
    return getattr(event, kind)


async def failure(call) -> grpc.aio.AioRpcError:
    """How the stream ends, which is next."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read(), 5)
    return caught.value


def reason_of(error: grpc.aio.AioRpcError) -> Reason.ValueType:
    return from_rpc(error, unreachable=Reason.REASON_UNSPECIFIED).reason


async def test_choice_texts_and_one_end(either_router, llm: ScriptedLlm):
    call = open_stream(either_router, session_id="s", user_id="u")
    routed = await read(call, "routed")
    assert [await read(call, "text"), await read(call, "text")] == ["re", "ply"]
    done = await read(call, "done")
    assert await call.read() is grpc.aio.EOF
    await asyncio.wait_for(llm.finished.wait(), 5)  # it was heard out

    chat = await either_router.Chat(router_pb2.ChatRequest(message=FRUSTRATED))
    assert (routed.routing, routed.analysis) == (chat.routing, chat.analysis)
    assert (done.generation, done.session_id) == (GENERATION, "s")
    assert min(done.timings.analysis_micros, done.timings.routing_micros, done.timings.llm_micros) > 0
    assert not done.fallback
    assert not done.HasField("failure")
    assert not done.HasField("routing")


async def test_the_choice_arrives_while_the_model_hangs_and_each_text_as_it_comes(either_router, llm):
    first, second = asyncio.Event(), asyncio.Event()
    llm.script = [first, "re", second, "ply", GENERATION]
    call = open_stream(either_router)
    assert (await read(call, "routed")).routing.persona == "Lua"
    first.set()
    assert await read(call, "text") == "re"
    second.set()
    assert await read(call, "text") == "ply"
    await read(call, "done")


async def test_the_time_of_the_model_is_up_to_the_last_text(either_router, llm, monkeypatch):
    clock = SimpleNamespace(now=0)
    monkeypatch.setattr(turn, "time", SimpleNamespace(perf_counter_ns=lambda: clock.now))
    first, second = asyncio.Event(), asyncio.Event()
    llm.script = [first, "reply", second, GENERATION]
    call = open_stream(either_router)
    await read(call, "routed")
    clock.now = 7_000_000
    first.set()
    await read(call, "text")
    clock.now = 90_000_000
    second.set()
    assert (await read(call, "done")).timings.llm_micros == 7000


async def test_the_model_is_asked_the_same_as_for_an_answer_at_once(either_router, llm):
    await either_router.Chat(router_pb2.ChatRequest(message=FRUSTRATED, persona="riri"))
    async for _ in open_stream(either_router, persona="riri"):
        pass
    at_once, streamed = llm.requests
    assert streamed.SerializeToString(deterministic=True) == at_once.SerializeToString(deterministic=True)
    assert streamed.persona == "Riri"


NO_APOLOGY = (Reason.REASON_CANCELLED, Reason.REASON_OVERLOADED)


@pytest.mark.parametrize("reason", [reason for reason in RULES if reason not in NO_APOLOGY])
async def test_a_failure_before_the_first_text_is_the_apology_of_an_answer_at_once(either_router, llm, reason):
    llm.reason, llm.script = reason, [reason]
    chat = await either_router.Chat(router_pb2.ChatRequest(message=FRUSTRATED))
    call = open_stream(either_router, session_id="s")
    assert (await read(call, "routed")).routing.persona == "Lua"
    assert await read(call, "text") == chat.content
    done = await read(call, "done")
    assert await call.read() is grpc.aio.EOF
    assert done.fallback
    assert (done.failure, done.routing, done.session_id) == (chat.failure, chat.routing, "s")
    assert done.routing.persona == "Nana"
    assert done.timings.llm_micros > 0
    assert not done.HasField("generation")


async def test_too_much_work_is_no_apology_but_an_error_to_come_again(either_router, llm):
    llm.script = [Reason.REASON_OVERLOADED]
    call = open_stream(either_router)
    await read(call, "routed")
    assert reason_of(await failure(call)) == Reason.REASON_OVERLOADED


@pytest.mark.parametrize("reason", RULES)
async def test_a_failure_after_the_first_text_is_told_and_logged_once(either_router, llm, reason, caplog):
    caplog.set_level(logging.INFO, "router_service")
    llm.script = ["re", reason]
    call = open_stream(either_router, session_id="s-1")
    await read(call, "routed")
    assert await read(call, "text") == "re"
    told = reason if reason in ENDS_OF_A_CALL else Reason.REASON_MODEL_INTERRUPTED
    assert reason_of(await failure(call)) == told
    (record,) = [record for record in caplog.records if record.name.startswith("router_service")]
    own = record.__dict__.keys() - logging.makeLogRecord({}).__dict__.keys() - {"message", "taskName", "asctime"}
    assert (record.levelname, record.getMessage()) == ("WARNING", "interrupted reply")
    assert {key: record.__dict__[key] for key in own} == {"reason": Reason.Name(reason)[7:], "persona": "Lua"}


async def test_an_end_without_a_generation_is_none(either_router, llm):
    llm.script = ["re"]
    call = open_stream(either_router)
    await read(call, "routed")
    await read(call, "text")
    assert reason_of(await failure(call)) == Reason.REASON_MODEL_INTERRUPTED

    llm.script = []
    call = open_stream(either_router)
    await read(call, "routed")
    assert "문제가 발생" in await read(call, "text")
    assert (await read(call, "done")).failure.reason == Reason.REASON_MODEL_INTERRUPTED


async def test_a_failure_after_the_generation_is_no_clean_end_either(either_router, llm):
    llm.script = ["reply", GENERATION, Reason.REASON_INTERNAL]
    call = open_stream(either_router)
    await read(call, "routed")
    await read(call, "text")
    assert reason_of(await failure(call)) == Reason.REASON_MODEL_INTERRUPTED


async def test_the_deadline_before_the_first_text_ends_in_an_apology(either_router, llm):
    llm.script = [asyncio.Event()]
    call = open_stream(either_router, seconds=0.5)
    await read(call, "routed")
    await read(call, "text")
    assert (await read(call, "done")).failure.reason == Reason.REASON_DEADLINE_EXCEEDED
    assert 0.3 < llm.time_remaining < 0.47
    await asyncio.wait_for(llm.cancelled.wait(), 5)


async def test_the_deadline_is_for_all_texts_and_still_told_in_time(either_router, llm):
    llm.script = ["re", asyncio.Event()]
    call = open_stream(either_router, seconds=0.5)
    await read(call, "routed")
    await read(call, "text")
    error = await failure(call)
    assert reason_of(error) == Reason.REASON_DEADLINE_EXCEEDED
    assert "grpc-status-details-bin" in error.trailing_metadata()  # the router says so, not the caller's own clock
    await asyncio.wait_for(llm.cancelled.wait(), 5)


@pytest.mark.parametrize("texts", [[], ["re"]])
async def test_whoever_leaves_cancels_the_model_call(either_router, llm, texts):
    llm.script = [*texts, asyncio.Event()]
    call = open_stream(either_router)
    await read(call, "routed")
    for text in texts:
        assert await read(call, "text") == text
    await asyncio.wait_for(llm.asked.wait(), 5)
    call.cancel()
    await asyncio.wait_for(llm.cancelled.wait(), 5)


class KeepingChannel(LocalChannel):
    """Keeps its streams, so that no garbage collection cancels them."""

    def __init__(self, server: LocalServer) -> None:
        super().__init__(server)
        self.calls: list[grpc.aio.Call] = []

    def unary_stream(self, method, *_, **__):
        begin = super().unary_stream(method)

        def keep(*arguments, **options):
            self.calls.append(begin(*arguments, **options))
            return self.calls[-1]

        return keep


async def test_once_the_stream_is_closed_the_model_call_is_cancelled(llm):
    """At once, and not when the garbage is collected."""
    llm.script = ["re", asyncio.Event()]
    below = LocalServer([CallGuard()])
    llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(llm, below)
    channel = KeepingChannel(below)
    servicer = servicer_of(channel)
    request = router_pb2.ChatStreamRequest(message=FRUSTRATED)
    events = servicer.ChatStream(request, SimpleNamespace(time_remaining=lambda: 10.0))
    assert (await anext(events)).HasField("routed")
    assert (await anext(events)).text == "re"
    await events.aclose()
    assert [call.cancelled() for call in channel.calls] == [True]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"message": " "}, Reason.REASON_MESSAGE_BLANK),
        ({"session_id": "s" * 129}, Reason.REASON_INVALID_FIELD),
        ({"user_id": "u" * 129}, Reason.REASON_INVALID_FIELD),
        ({"persona": "Bob"}, Reason.REASON_PERSONA_NOT_FOUND),
        ({"previous_persona": "Bob"}, Reason.REASON_PERSONA_NOT_FOUND),
    ],
)
async def test_what_cannot_be_answered_fails_before_anything_is_said(either_router, llm, fields, reason):
    assert reason_of(await failure(open_stream(either_router, **fields))) == reason
    assert not llm.requests
