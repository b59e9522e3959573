"""The router's servicer without a server, for tests that hold its parts in hand."""

from __future__ import annotations

import grpc.aio

from chassis.database import Database, NoDatabase
from router_service.analysis import Reader
from router_service.conversations.memory import Memory
from router_service.conversations.store import SqlConversations
from router_service.conversations.summary import NoSummaries
from router_service.decisions import Decisions
from router_service.llm_client import LlmClient
from router_service.persona_store import PersonaStore
from router_service.personas import DEFAULT_DIRECTORY
from router_service.reading import Readings
from router_service.second_opinion import NoSecondOpinion
from router_service.service import PersonaRouterServicer


def servicer_of(
    channel: grpc.aio.Channel | None = None, *, store: PersonaStore | None = None, database: Database | None = None
) -> PersonaRouterServicer:
    """`channel` leads to the LLM gateway; None for tests that do not call it."""
    conversations = SqlConversations(database or NoDatabase())
    return PersonaRouterServicer(
        store or PersonaStore(DEFAULT_DIRECTORY),
        Readings(Reader.load(), NoSecondOpinion()),
        LlmClient(channel or grpc.aio.insecure_channel("")),
        conversations,
        Memory(conversations, NoSummaries(), timeout_seconds=1.0),
        Decisions(),
        told_turns=12,
        request_timeout_seconds=10,
    )
