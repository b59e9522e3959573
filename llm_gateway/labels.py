"""Names as telemetry tells them. Callers may ask for any model and any persona: only so many are told apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from llm_gateway.spending import OTHER

MAX_PERSONAS: Final = 100
NO_PERSONA: Final = "(none)"


class Labels:
    def __init__(self, own_model: str, known_as: Callable[[str], str | None] = lambda _: None) -> None:
        """`own_model` is the configured one; `known_as` gives the names of others that are told, and None for what is
        not known."""
        self._own_model = own_model
        self._known_as = known_as
        self._personas: set[str] = set()

    def model(self, model_id: str) -> str:
        return model_id if model_id == self._own_model else self._known_as(model_id) or OTHER

    def persona(self, name: str) -> str:
        """The first 100 by name, in the order of their first use."""
        if name not in self._personas:
            if len(self._personas) >= MAX_PERSONAS:
                return OTHER
            self._personas.add(name)
        return name or NO_PERSONA
