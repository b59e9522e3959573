"""Builds the persona router from its settings."""

from __future__ import annotations

import grpc.aio

from chassis.server import Hosted
from chassis.settings import stop
from ion.router.v1 import router_pb2, router_pb2_grpc
from router_service.llm_client import LlmClient
from router_service.personas import PersonaFileError, PersonaTable, load_personas
from router_service.service import PersonaRouterServicer
from router_service.settings import RouterSettings

NAME = router_pb2.DESCRIPTOR.services_by_name["PersonaRouterService"].full_name


def load_table(settings: RouterSettings) -> PersonaTable:
    """The personas, or the end of the process with one line a bad key."""
    try:
        return load_personas(settings.personas_dir)
    except PersonaFileError as error:
        stop(*str(error).splitlines())


def build(settings: RouterSettings, llm_channel: grpc.aio.Channel) -> Hosted:
    """The router, calling the LLM gateway over `llm_channel`, which stays the caller's to close."""
    servicer = PersonaRouterServicer(
        load_table(settings), LlmClient(llm_channel), request_timeout_seconds=settings.request_timeout_seconds
    )
    return Hosted(NAME, lambda server: router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(servicer, server))
