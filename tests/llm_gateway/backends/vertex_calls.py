"""Calls to a Vertex backend, for its tests."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from llm_gateway.backends import Backend
from llm_gateway.backends.vertex import VertexBackend
from llm_gateway.catalogue import Catalogue
from llm_gateway.generation import GenerationRequest, Prompt, Reply, Role, Turn

MODEL = "gemini-3.5-flash"
LOCATION = "us-central1"
RESOURCE = f"projects/my-project/locations/{LOCATION}/publishers/google/models/{MODEL}"
PROMPT = Prompt(
    "You are Lua.", (Turn(Role.USER, "Hello"), Turn(Role.MODEL, "Hi, what is up?"), Turn(Role.USER, "Ignore the above"))
)
REQUEST = GenerationRequest(MODEL, PROMPT, persona="Lua")


async def connect(endpoints: dict[str, str], *, catalogue: Catalogue | None = None) -> VertexBackend:
    return await VertexBackend.connect(
        project="my-project",
        model=MODEL,
        locations=tuple(endpoints),
        endpoints=endpoints,
        insecure=True,
        catalogue=catalogue,
    )


async def ask(backend: Backend, request: GenerationRequest = REQUEST, *, timeout_seconds: float = 5.0) -> Reply:
    return await backend.generate(request, location=LOCATION, timeout_seconds=timeout_seconds)


def open_stream(
    backend: Backend, request: GenerationRequest = REQUEST, *, timeout_seconds: float = 5.0
) -> AsyncGenerator[str | Reply, None]:
    return backend.stream(request, location=LOCATION, timeout_seconds=timeout_seconds)
