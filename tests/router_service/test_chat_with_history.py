"""Chats that rest on what was said before: kept here, or by the caller."""

from __future__ import annotations

from types import SimpleNamespace

import grpc
import grpc.aio
import pytest

from chassis.caller import CALLER_KEY, Caller
from chassis.errors import from_rpc
from chassis.local_channel import LocalServer
from chassis.server import CallGuard
from chassis.trust import SERVICE_TOKEN_KEY
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service import turn
from router_service.conversations.owner import owner_of
from router_service.conversations.store import SqlConversations
from router_service.persona_store import PersonaStore
from router_service.personas import DEFAULT_DIRECTORY, PersonaTable
from tests.router_service.conftest import SERVICE_TOKEN, hosting, in_process, over_tcp
from tests.router_service.scripted_llm import GENERATION, ScriptedLlm
from tests.router_service.servicers import servicer_of

USER, MODEL = llm_pb2.ROLE_USER, llm_pb2.ROLE_MODEL
STORED = router_pb2.HISTORY_STATUS_STORED
UNAVAILABLE = router_pb2.HISTORY_STATUS_UNAVAILABLE
SKIPPED = router_pb2.HISTORY_STATUS_SKIPPED
KEY_1 = ((SERVICE_TOKEN_KEY, SERVICE_TOKEN), (CALLER_KEY, Caller("key:1").to_header()))
NEAR_EQUALS = "I work in a bakery."  # Riri alone, Elro where it answered last


def said(*texts: str) -> list[llm_pb2.Content]:
    """Turns, the user's first."""
    return [llm_pb2.Content(role=(USER, MODEL)[number % 2], text=text) for number, text in enumerate(texts)]


def texts(request) -> list[str]:
    return [content.text for content in request.prompt.contents]


async def chat(router, message: str = "", *, metadata=(), **fields) -> router_pb2.ChatResponse:
    return await router.Chat(router_pb2.ChatRequest(message=message, **fields), timeout=60, metadata=metadata)


async def stream(router, message: str = "", **fields) -> list[router_pb2.ChatStreamResponse]:
    request = router_pb2.ChatStreamRequest(message=message, **fields)
    return [event async for event in router.ChatStream(request, timeout=60)]


async def test_at_once_and_as_a_stream_are_turns_of_one_session(keeping_router, llm):
    first = await chat(keeping_router, " one ", session_id="s")
    *_, second = await stream(keeping_router, "two", session_id="s")
    third = await chat(keeping_router, "three", session_id="s")
    assert [first.history, second.done.history, third.history] == [STORED] * 3
    assert min(first.timings.history_micros, second.done.timings.history_micros) > 0
    assert texts(llm.requests[1]) == ["one", "reply", "two"]
    assert texts(llm.requests[2]) == ["one", "reply", "two", "reply", "three"]
    assert [content.role for content in llm.requests[2].prompt.contents] == [USER, MODEL, USER, MODEL, USER]


async def test_the_time_of_history_is_that_of_reading_and_storing(llm, database, monkeypatch):
    clock = SimpleNamespace(now=0)
    monkeypatch.setattr(turn, "time", SimpleNamespace(perf_counter_ns=lambda: clock.now))

    def slow(method, nanoseconds: int):
        async def slowly(*arguments):
            clock.now += nanoseconds
            return await method(*arguments)

        return slowly

    monkeypatch.setattr(SqlConversations, "recall", slow(SqlConversations.recall, 3_000_000))
    monkeypatch.setattr(SqlConversations, "append", slow(SqlConversations.append, 40_000_000))
    async with hosting(llm, in_process, database) as router:
        timings = (await chat(router, "hello", session_id="s")).timings
        *_, last = await stream(router, "hello", session_id="s")
    assert timings == last.done.timings == router_pb2.Timings(history_micros=43_000)


async def test_without_a_database_the_chat_goes_on_and_says_so(router, llm):
    assert (await chat(router, "one", session_id="s")).history == UNAVAILABLE
    *_, last = await stream(router, "two", session_id="s")
    assert (last.done.history, last.done.session_id) == (UNAVAILABLE, "s")
    assert texts(llm.requests[1]) == ["two"]


async def test_an_apology_is_skipped(keeping_router, llm):
    llm.reason, llm.script = Reason.REASON_MODEL_EMPTY, [Reason.REASON_MODEL_EMPTY]
    assert (await chat(keeping_router, "one", session_id="s")).history == SKIPPED
    assert (await stream(keeping_router, "one", session_id="s"))[-1].done.history == SKIPPED
    llm.reason = None
    await chat(keeping_router, "two", session_id="s")
    assert texts(llm.requests[-1]) == ["two"]


async def test_a_stream_that_breaks_off_is_no_turn(keeping_router, llm):
    llm.script = ["re", Reason.REASON_INTERNAL]
    with pytest.raises(grpc.aio.AioRpcError):
        await stream(keeping_router, "one", session_id="s")
    await chat(keeping_router, "two", session_id="s")
    assert texts(llm.requests[-1]) == ["two"]


async def test_whoever_answered_last_in_the_session_is_preferred_unless_the_request_says_who_did(keeping_router):
    async def chosen(**fields) -> str:
        return (await chat(keeping_router, NEAR_EQUALS, session_id="s", **fields)).routing.persona

    assert await chosen() == "Riri"
    assert await chosen(persona="Elro") == "Elro"
    assert await chosen() == "Elro"
    assert await chosen(previous_persona="riri") == "Riri"
    assert (await stream(keeping_router, NEAR_EQUALS, session_id="s"))[0].routed.routing.persona == "Riri"


async def test_a_persona_that_there_is_no_more_is_nobodys_advantage(llm, database):
    async with hosting(llm, in_process, database) as router:
        await chat(router, NEAR_EQUALS, session_id="s", persona="Elro")
    store = PersonaStore(DEFAULT_DIRECTORY)
    store.table = PersonaTable(tuple(persona for persona in store.table.personas if persona.name != "Elro"))
    below, above = LocalServer([CallGuard()]), LocalServer([CallGuard()])
    llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(llm, below)
    servicer = servicer_of(below.channel(), store=store, database=database)
    router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(servicer, above)
    answer = await chat(router_pb2_grpc.PersonaRouterServiceStub(above.channel()), NEAR_EQUALS, session_id="s")
    assert answer.routing.persona == "Riri"
    assert not any(score.session_bonus for score in answer.routing.scores)
    assert len(texts(llm.requests[-1])) == 3


class OfflineLlm(ScriptedLlm):
    """Whose replies are no summaries."""

    async def Generate(self, request, context):
        self.requests.append(request)
        return llm_pb2.GenerateResponse(text="reply", generation=llm_pb2.Generation(offline=True, attempts=1))


@pytest.mark.parametrize(("summary", "told"), [(False, 2), (True, 10)])
async def test_the_newest_turns_are_told_and_those_that_wait_for_a_summary(database, summary, told):
    llm = OfflineLlm()
    async with hosting(llm, in_process, database, history_turns=2, summary=summary) as router:
        for number in range(13):
            assert (await chat(router, f"said {number}", session_id="s")).history == STORED
        chats = [request for request in llm.requests if request.persona]
        assert texts(chats[-1])[::2] == [f"said {number}" for number in range(12 - told, 13)]
        assert (len(llm.requests) > len(chats)) == summary


async def test_what_rests_on_earlier_turns_is_cached_for_their_owner_alone(keeping_router, llm):
    async def scope(message: str = "", **fields) -> str:
        await chat(keeping_router, message, metadata=KEY_1, **fields)
        return llm.requests[-1].scope

    mina, nobody = owner_of("key:1", "mina"), owner_of("key:1", "")
    assert await scope("hello") == "key:1"
    assert await scope("hello", user_id="mina", session_id="s") == "key:1"
    assert await scope("hello", user_id="mina", session_id="s") == mina
    assert await scope(contents=said("hello"), user_id="mina") == "key:1"
    assert await scope(contents=said("hello", "hi", "and?"), user_id="mina") == mina
    assert await scope(contents=said("hello", "hi", "and?")) == nobody
    await chat(keeping_router, "hello")
    assert llm.requests[-1].scope == ""


async def test_a_conversation_of_the_callers_own_is_told_as_it_came_and_its_end_is_routed(either_router, llm):
    contents = said("진짜 짜증나!! 왜 계속 안 돼!!", "What does not work?", "  what is the plan for tomorrow?\n")
    contents.insert(1, llm_pb2.Content(text="and this"))
    answer = await chat(either_router, contents=contents)
    assert list(llm.requests[-1].prompt.contents)[:-1] == contents[:-1]
    assert texts(llm.requests[-1])[-1] == contents[-1].text
    alone = await chat(either_router, "what is the plan for tomorrow?")
    assert (answer.routing, answer.analysis) == (alone.routing, alone.analysis)
    assert answer.history == router_pb2.HISTORY_STATUS_UNSPECIFIED
    routed, *_, last = await stream(either_router, contents=contents)
    assert routed.routed.routing == alone.routing
    assert last.done.generation == GENERATION
    assert texts(llm.requests[-1]) == texts(llm.requests[0])


async def test_a_long_end_is_read_in_part_and_told_whole(router, llm):
    text = "진짜 짜증나!! 왜 계속 안 돼!! 열받아!! " * 30 + "\n" + "log line\n" * 8000
    answer = await chat(router, contents=said(text))
    assert answer.analysis.characters_read == 1000
    assert texts(llm.requests[-1]) == [text]


async def test_it_says_how_much_of_a_message_was_read(router):
    assert (await chat(router, " hello ")).analysis.characters_read == 5
    route = await router.Route(router_pb2.RouteRequest(message=" hello "))
    key = await router.Route(router_pb2.RouteRequest(resonance_key="calm-medium-inquiry"))
    assert (route.analysis.characters_read, key.analysis.characters_read) == (5, 0)


async def test_what_the_application_asks_for_reaches_the_model(either_router, llm):
    parameters = llm_pb2.GenerationParameters(temperature=0, stop_sequences=["END"])
    wanted = llm_pb2.CacheControl(bypass=True)
    fields = {"instructions": "Sell books.", "parameters": parameters, "cache_control": wanted}
    await chat(either_router, "hello", **fields)
    await stream(either_router, "hello", **fields)
    at_once, streamed = llm.requests
    assert at_once.SerializeToString(deterministic=True) == streamed.SerializeToString(deterministic=True)
    assert "Sell books." in at_once.prompt.system_instruction
    assert (at_once.parameters.temperature, list(at_once.parameters.stop_sequences)) == (0, ["END"])
    assert at_once.parameters.max_output_tokens > 0
    assert at_once.cache_control == wanted


@pytest.mark.parametrize(
    "fields",
    [
        {"message": "hi", "contents": said("hi")},
        {"contents": said("hi", "hello")},
        {"message": "hi", "instructions": "x" * 32_001},
        {"message": "hi", "parameters": llm_pb2.GenerationParameters(top_p=2)},
        {"message": "hi", "session_id": "a\x00"},
    ],
)
async def test_what_cannot_be_answered_is_refused_before_anything_is_asked_or_said(either_router, llm, fields):
    for ask in (chat, stream):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(either_router, **fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not llm.requests


@pytest.mark.parametrize("reason", [Reason.REASON_PROMPT_TOO_LARGE, Reason.REASON_MODEL_BLOCKED])
async def test_who_wants_no_apology_gets_the_reason(either_router, llm, reason):
    llm.reason, llm.script = reason, [reason]
    for ask in (chat, stream):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(either_router, "hi", no_apology=True)
        assert from_rpc(caught.value, unreachable=Reason.REASON_UNSPECIFIED).reason == reason


async def test_who_names_no_session_has_nothing_to_do_with_the_database(llm, database, monkeypatch):
    async with hosting(llm, over_tcp, database) as router:
        for method in ("reading", "writing", "transaction"):
            monkeypatch.delattr(type(database), method)
        answer = await chat(router, "hello", user_id="mina")
        assert (answer.content, answer.timings.history_micros) == ("reply", 0)
        assert answer.history == router_pb2.HISTORY_STATUS_UNSPECIFIED
