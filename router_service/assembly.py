"""Builds the persona router from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from chassis.server import Hosted
from chassis.settings import stop
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service.analysis import Reader, WeightsError
from router_service.llm_client import LlmClient
from router_service.persona_store import PersonaStore
from router_service.personas import PersonaFileError
from router_service.second_opinion import ModelOpinion, NoSecondOpinion, SecondOpinion
from router_service.service import PersonaRouterServicer
from router_service.settings import RouterSettings

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


@asynccontextmanager
async def open_persona_router(settings: RouterSettings, llm_channel: grpc.aio.Channel) -> AsyncIterator[Hosted]:
    """The router, following its persona files until the block ends. `llm_channel` stays the caller's to close."""
    store = load_store(settings)
    llm = LlmClient(llm_channel)
    servicer = PersonaRouterServicer(
        store,
        load_reader(),
        llm,
        second_opinion_of(settings, llm),
        request_timeout_seconds=settings.request_timeout_seconds,
    )
    async with store.watching():
        yield Hosted(NAME, lambda server: router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(servicer, server))
