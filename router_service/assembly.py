"""Builds the persona router from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import grpc.aio

from chassis import telemetry
from chassis.database import Database, History
from chassis.observability import metrics
from chassis.server import Hosted
from chassis.settings import stop
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service.analysis import Reader, WeightsError
from router_service.conversations.conversation import Conversations
from router_service.conversations.memory import Memory
from router_service.conversations.retention import sweeping
from router_service.conversations.store import SqlConversations
from router_service.conversations.summary import FOLDED_TURNS, NoSummaries, Summaries, summarising
from router_service.decisions import Decisions
from router_service.llm_client import LlmClient
from router_service.persona_store import PersonaStore
from router_service.personas import PersonaFileError
from router_service.reading import Readings
from router_service.second_opinion import ModelOpinion, NoSecondOpinion, SecondOpinion
from router_service.service import PersonaRouterServicer
from router_service.settings import RouterSettings

# For `open_database`: the tables that the router needs.
HISTORY: Final = History("conversations", Path(__file__).parent / "conversations" / "migrations")
# Of a session whose summary is late, turns that the next one still covers.
WAITING_TURNS: Final = 12
NAME = router_pb2.DESCRIPTOR.services_by_name["PersonaRouterService"].full_name


def load_store(settings: RouterSettings) -> PersonaStore:
    """The personas, or the end of the process with one line a bad key."""
    try:
        return PersonaStore(settings.personas_dir)
    except PersonaFileError as error:
        stop(*str(error).splitlines())


def load_reader() -> Reader:
    """The reader, or the end of the process with one line."""
    try:
        return Reader.load()
    except WeightsError as error:
        stop(str(error))


def second_opinion_of(settings: RouterSettings, llm: LlmClient) -> SecondOpinion:
    if not settings.second_opinion:
        return NoSecondOpinion()
    return ModelOpinion(
        llm, below=settings.second_opinion_below, timeout_seconds=settings.second_opinion_timeout_seconds
    )


def told_turns(settings: RouterSettings) -> int:
    """The most turns that a prompt has word by word: so many more than are asked for as wait for being summarised."""
    return settings.history_turns + (FOLDED_TURNS if settings.summary else 0)


def conversations_of(settings: RouterSettings, database: Database) -> Conversations:
    recalled = told_turns(settings) + (WAITING_TURNS if settings.summary else 0)
    return SqlConversations(database, recalled_turns=recalled)


@asynccontextmanager
async def summaries_of(
    settings: RouterSettings, conversations: Conversations, llm: LlmClient
) -> AsyncIterator[Summaries]:
    if not settings.summary:
        yield NoSummaries()
        return
    async with summarising(conversations, llm, history_turns=settings.history_turns) as summaries:
        yield summaries


@asynccontextmanager
async def open_persona_router(
    settings: RouterSettings, llm_channel: grpc.aio.Channel, database: Database, *, llm_target: str = ""
) -> AsyncIterator[Hosted]:
    """The router, following its persona files until the block ends. `llm_channel`, opened for `llm_target`, and
    `database`, which is to know HISTORY, stay the caller's to close."""
    store = load_store(settings)
    llm = LlmClient(llm_channel, target=llm_target)
    conversations = conversations_of(settings, database)
    decisions = Decisions()
    metrics.observe(telemetry.ROUTING_DECISIONS, decisions.counted)
    async with (
        store.watching(),
        sweeping(conversations, retention_days=settings.session_retention_days),
        summaries_of(settings, conversations, llm) as summaries,
    ):
        servicer = PersonaRouterServicer(
            store,
            Readings(load_reader(), second_opinion_of(settings, llm)),
            llm,
            conversations,
            Memory(conversations, summaries, timeout_seconds=settings.database_timeout_seconds),
            decisions,
            told_turns=told_turns(settings),
            request_timeout_seconds=settings.request_timeout_seconds,
        )
        yield Hosted(NAME, lambda server: router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(servicer, server))
