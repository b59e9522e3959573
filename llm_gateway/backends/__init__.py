"""What can generate: one protocol, one module a backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from llm_gateway.generation import GenerationRequest, Prompt, Reply


class Backend(Protocol):
    """A model's service. It makes exactly one attempt a call: retries belong to `completion`."""

    @property
    def default_model(self) -> str: ...

    @property
    def provider(self) -> str:
        """As the GenAI conventions of OpenTelemetry name it."""
        ...

    @property
    def locations(self) -> tuple[str, ...]:
        """Where calls can go, in order of preference; at least one."""
        ...

    def address(self, location: str) -> str:
        """The "host:port" that calls go to; "" where none is called."""
        ...

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        """One complete reply. Raises ModelError, or DeadlineExceeded after `timeout_seconds`. Cancelling it cancels
        the call at the model's service."""
        ...

    def stream(
        self, request: GenerationRequest, *, location: str, timeout_seconds: float
    ) -> AsyncGenerator[str | Reply, None]:
        """The text as it is made, each piece at least 1 character, then the whole Reply; always in that order.

        Raises as `generate` does, before or after pieces, and ModelInterrupted where the model's service ends the
        stream without saying why the model stopped. `timeout_seconds` spans the whole stream. Closing it, or cancelling
        what waits for its next item, cancels the call at the model's service."""
        ...

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        """Input tokens of the prompt. Raises as `generate` does."""
        ...

    async def close(self) -> None: ...
