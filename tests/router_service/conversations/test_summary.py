"""Running summaries: when, of what, by whom, and that nothing else is stored."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.caller import CALLER_KEY, Caller, enter
from chassis.deadline import Deadline
from chassis.errors import IonError
from chassis.local_channel import LocalServer
from chassis.observability import tracing
from chassis.server import CallGuard
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from router_service.conversations import summary
from router_service.conversations.conversation import Exchange, Past, Turn
from router_service.conversations.store import SqlConversations
from router_service.conversations.summary import (
    FOLDED_TURNS,
    INSTRUCTIONS,
    MAX_SUMMARY_CHARACTERS,
    MAX_TEXT_CHARACTERS,
    MAX_UNDER_WAY,
    ModelSummaries,
    summarising,
    summary_request,
)
from router_service.llm_client import LlmClient
from tests.observed import recorded_spans

OWNER = "a" * 64
HISTORY_TURNS = 2
DUE = HISTORY_TURNS + FOLDED_TURNS + 1  # turns that are not covered


class NoteTaker(llm_pb2_grpc.LlmGatewayServiceServicer):
    """An LLM gateway that takes notes as it is told."""

    def __init__(self) -> None:
        self.requests: list[llm_pb2.GenerateRequest] = []
        self.metadata: list[dict] = []
        self.text = "They spoke of bread."
        self.offline = False
        self.how = {"complete": True}
        self.reason: Reason.ValueType | None = None
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.cancelled = asyncio.Event()

    async def Generate(self, request, context):
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.reason is not None:
            raise IonError(self.reason)
        return llm_pb2.GenerateResponse(text=self.text, generation=self._generation())

    def _generation(self) -> llm_pb2.Generation:
        return llm_pb2.Generation(offline=self.offline, attempts=1, **self.how)


@pytest.fixture
def notes() -> NoteTaker:
    return NoteTaker()


@asynccontextmanager
async def summaries_of(notes: NoteTaker, conversations: SqlConversations) -> AsyncIterator[ModelSummaries]:
    server = LocalServer([CallGuard()])
    llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(notes, server)
    async with summarising(conversations, LlmClient(server.channel()), history_turns=HISTORY_TURNS) as summaries:
        yield summaries
    await server.stop(0)


@pytest.fixture
def conversations(database) -> SqlConversations:
    return SqlConversations(database)


@pytest.fixture
async def summaries(notes, conversations) -> AsyncIterator[ModelSummaries]:
    async with summaries_of(notes, conversations) as summaries:
        yield summaries


async def recall(conversations, session_id: str = "s") -> Past:
    return await conversations.recall(OWNER, session_id, Deadline.after(60))


async def talk(conversations, turns: int, session_id: str = "s") -> Past:
    """So many turns; the past as the last of them began."""
    for _ in range(turns):
        past = await recall(conversations, session_id)
        number = len(past.turns) + 1
        exchange = Exchange(f"said {number}", f"answered {number}", "Lua", "calm-medium-statement", 0.5, "m")
        assert await conversations.append(OWNER, session_id, past, exchange, Deadline.after(60))
    return past


async def under_way(summaries: ModelSummaries) -> None:
    """Until all that are under way have ended."""
    await asyncio.gather(*summaries._under_way.values())


def texts(request: llm_pb2.GenerateRequest) -> list[str]:
    return [content.text for content in request.prompt.contents]


async def test_the_older_turns_are_folded_and_the_newest_left(conversations, summaries, notes):
    summaries.consider(OWNER, await talk(conversations, DUE - 1))
    assert not summaries._under_way
    summaries.consider(OWNER, await talk(conversations, 1))
    await under_way(summaries)
    past = await recall(conversations)
    assert past.summary == "They spoke of bread."
    assert [turn.exchange.message for turn in past.turns] == [f"said {number}" for number in (DUE - 1, DUE)]
    (request,) = notes.requests
    folded = [text for number in range(1, DUE - 1) for text in (f"said {number}", f"answered {number}")]
    assert texts(request)[:-1] == folded


async def test_the_next_one_rests_on_the_one_before(conversations, summaries, notes):
    summaries.consider(OWNER, await talk(conversations, DUE))
    await under_way(summaries)
    notes.text = "They spoke of bread, and of butter."
    past = await talk(conversations, FOLDED_TURNS)
    summaries.consider(OWNER, past)
    assert len(notes.requests) == 1
    summaries.consider(OWNER, await talk(conversations, 1))
    await under_way(summaries)
    so_far, first, *_ = texts(notes.requests[1])
    assert so_far.endswith("\n\nThey spoke of bread.")
    assert first == past.turns[0].exchange.message
    assert (await recall(conversations)).summary == "They spoke of bread, and of butter."


def turn(text: str) -> Turn:
    return Turn(1, datetime.now(UTC), Exchange(text, text, "Lua", "calm-medium-statement", 0.5, "m"))


def test_of_long_texts_the_beginning_is_folded():
    request = summary_request(OWNER, "", [turn("x" * 300_000)])
    assert [len(text) for text in texts(request)[:2]] == [MAX_TEXT_CHARACTERS] * 2


def test_what_is_said_is_content_and_the_reply_is_neither_kept_nor_shared():
    request = summary_request(OWNER, "OLD {notes}", [turn("NEW %s")])
    assert request.prompt.system_instruction == INSTRUCTIONS
    assert [(content.role, content.text) for content in request.prompt.contents[1:3]] == [
        (llm_pb2.ROLE_USER, "NEW %s"),
        (llm_pb2.ROLE_MODEL, "NEW %s"),
    ]
    assert request.prompt.contents[-1].role == llm_pb2.ROLE_USER
    assert request.scope == OWNER
    assert request.cache_control.no_store
    assert request.cache_control.bypass
    assert 0 < request.parameters.max_output_tokens <= 1024


async def test_what_the_offline_backend_says_is_no_summary(conversations, summaries, notes):
    notes.offline = True
    summaries.consider(OWNER, await talk(conversations, DUE))
    await under_way(summaries)
    past = await recall(conversations)
    assert (past.summary, len(past.turns)) == ("", DUE)


@pytest.mark.parametrize("how", [{"complete": False}, {"complete": True, "trimmed_turns": 1}], ids=["cut", "trimmed"])
async def test_what_does_not_hold_all_it_was_to_hold_is_no_summary(conversations, summaries, notes, how):
    notes.how = how
    summaries.consider(OWNER, await talk(conversations, DUE))
    await under_way(summaries)
    past = await recall(conversations)
    assert (past.summary, len(past.turns)) == ("", DUE)


async def test_a_failure_changes_nothing_and_is_logged_without_a_text(conversations, summaries, notes, caplog):
    caplog.set_level(logging.INFO, "router_service")
    notes.reason = Reason.REASON_MODEL_BLOCKED
    summaries.consider(OWNER, await talk(conversations, DUE))
    await under_way(summaries)
    past = await recall(conversations)
    assert (past.summary, len(past.turns)) == ("", DUE)
    (record,) = [record for record in caplog.records if record.name.startswith("router_service")]
    assert (record.getMessage(), record.reason) == ("no summary", "MODEL_BLOCKED")
    assert "said" not in str(record.__dict__)


@pytest.mark.parametrize("failure", ["reason", "offline"])
async def test_after_one_that_came_to_nothing_the_session_rests(conversations, summaries, notes, monkeypatch, failure):
    setattr(notes, failure, Reason.REASON_MODEL_BLOCKED if failure == "reason" else True)
    summaries.consider(OWNER, await talk(conversations, DUE))
    await under_way(summaries)
    summaries.consider(OWNER, await talk(conversations, 1))
    await under_way(summaries)
    assert len(notes.requests) == 1
    summaries.consider(OWNER, await talk(conversations, DUE, "another"))
    await under_way(summaries)
    assert len(notes.requests) == 2
    monkeypatch.setattr(summary, "REST_SECONDS", 0.0)
    summaries._resting.clear()
    for _ in range(2):
        summaries.consider(OWNER, await talk(conversations, 1))
        await under_way(summaries)
    assert len(notes.requests) == 4


async def test_those_that_rest_are_bounded(conversations, summaries, notes, monkeypatch):
    monkeypatch.setattr(summary, "MAX_RESTING", 1)
    notes.offline = True
    for session_id in ("one", "other"):
        summaries.consider(OWNER, await talk(conversations, DUE, session_id))
        await under_way(summaries)
    assert len(summaries._resting) == 1


async def test_a_session_has_one_at_a_time_and_the_process_a_few(conversations, summaries, notes):
    notes.may_answer.clear()
    pasts = [await talk(conversations, DUE, f"s{number}") for number in range(MAX_UNDER_WAY + 1)]
    for past in [pasts[0], *pasts]:
        summaries.consider(OWNER, past)
    assert len(summaries._under_way) == MAX_UNDER_WAY
    notes.may_answer.set()
    await under_way(summaries)
    assert len(notes.requests) == MAX_UNDER_WAY
    summaries.consider(OWNER, pasts[-1])
    await under_way(summaries)
    assert (await recall(conversations, f"s{MAX_UNDER_WAY}")).summary


async def test_replicas_do_not_overwrite_each_other(conversations, notes):
    """Whoever comes second had folded turns that are covered by now, and perhaps fewer."""
    notes.may_answer.clear()
    slow, quick = NoteTaker(), NoteTaker()
    slow.may_answer.clear()
    slow.text = "Notes of one turn less."
    async with summaries_of(slow, conversations) as late, summaries_of(quick, conversations) as early:
        late.consider(OWNER, await talk(conversations, DUE))
        early.consider(OWNER, await talk(conversations, 1))
        await under_way(early)
        slow.may_answer.set()
        await under_way(late)
    past = await recall(conversations)
    assert past.summary == "They spoke of bread."
    assert [turn.exchange.message for turn in past.turns] == [f"said {number}" for number in (DUE, DUE + 1)]


async def test_a_session_that_is_deleted_meanwhile_is_no_failure(conversations, summaries, notes, caplog):
    caplog.set_level(logging.INFO, "router_service")
    notes.may_answer.clear()
    summaries.consider(OWNER, await talk(conversations, DUE))
    await conversations.delete(OWNER, "s", Deadline.after(60))
    notes.may_answer.set()
    await under_way(summaries)
    assert not [record for record in caplog.records if record.name.startswith("router_service")]
    assert await recall(conversations) == Past()


async def test_at_the_end_what_is_under_way_is_cancelled(conversations, notes, caplog):
    caplog.set_level(logging.INFO, "router_service")
    notes.may_answer.clear()
    async with summaries_of(notes, conversations) as summaries:
        summaries.consider(OWNER, await talk(conversations, DUE))
        async with asyncio.timeout(5):
            while not notes.requests:
                await asyncio.sleep(0)
    assert notes.cancelled.is_set()
    assert not [record for record in caplog.records if record.name.startswith("router_service")]  # it did not run out
    assert not summaries._under_way
    assert (await recall(conversations)).summary == ""


async def test_it_is_no_part_of_the_call_that_gives_the_occasion(conversations, summaries, notes):
    meter = enter(Caller("key:1"))
    with recorded_spans() as spans, tracing.span(telemetry.RPC_SERVER, "call") as call:
        summaries.consider(OWNER, await talk(conversations, DUE))
        await under_way(summaries)
    asked = next(span for span in spans.get_finished_spans() if span.kind is SpanKind.CLIENT and "/" in span.name)
    assert asked.parent is None
    assert f"{asked.context.trace_id:032x}" != call.call.trace_id
    assert CALLER_KEY not in notes.metadata[0]
    assert meter.tokens == 0


async def test_a_summary_is_cut_where_it_is_too_long_to_be_one(conversations, summaries, notes):
    notes.text = " " + "x" * 2 * MAX_SUMMARY_CHARACTERS
    summaries.consider(OWNER, await talk(conversations, DUE))
    await under_way(summaries)
    assert (await recall(conversations)).summary == "x" * MAX_SUMMARY_CHARACTERS
