"""What can generate: one protocol, one module a backend."""

from __future__ import annotations

from typing import Protocol

from llm_gateway.generation import GenerationRequest, Prompt, Reply


class Backend(Protocol):
    """A model's service. It makes exactly one attempt a call: retries belong to `completion`."""

    @property
    def default_model(self) -> str: ...

    @property
    def locations(self) -> tuple[str, ...]:
        """Where calls can go, in order of preference; at least one."""
        ...

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        """One complete reply. Raises ModelError, or DeadlineExceeded after `timeout_seconds`. Cancelling it cancels
        the call at the model's service."""
        ...

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        """Input tokens of the prompt. Raises as `generate` does."""
        ...

    async def close(self) -> None: ...
