"""The models that there are: one that leaves the choice to the router, and one a persona."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from chassis.deadline import Deadline
from chassis.errors import IonError
from gateway_http.openai.schemas import Model
from gateway_http.router_client import RouterClient
from ion.error.v1.reason_pb2 import Reason

AUTO: Final = "ion-auto"
KEPT_SECONDS: Final = 5.0  # personas may change while the router runs
# When models came to be, as the interface wants to know: the day of its first release.
_CREATED: Final = 1795564800
_PREFIX: Final = "ion-"
NOT_FOUND: Final = "There is no model of that name: GET /v1/models lists them all."


def model_of(persona: str) -> str:
    return _PREFIX + persona.lower()


def persona_of(model: str) -> str:
    """The persona that the model stands for, in lower case; empty for the router's choice. Whether there is one is the
    router's to know. Raises IonError where the name cannot be a model's."""
    if model == AUTO:
        return ""
    persona = model.removeprefix(_PREFIX)
    if not persona or persona == model or persona != persona.strip().lower():
        raise model_not_found()
    return persona


def model_not_found() -> IonError:
    return IonError(Reason.REASON_PERSONA_NOT_FOUND, NOT_FOUND)


class Catalogue:
    """All models, kept for a few seconds. `clock` tells seconds."""

    def __init__(self, router: RouterClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._router = router
        self._clock = clock
        self._models: dict[str, Model] = {}
        self._until = -math.inf

    async def models(self, deadline: Deadline) -> dict[str, Model]:
        """By their names. Raises IonError where the router must be asked and does not answer."""
        if self._clock() >= self._until:
            listed = await self._router.list_personas(deadline)
            names = [AUTO, *(model_of(persona.name) for persona in listed.personas)]
            self._models = {name: Model(id=name, created=_CREATED) for name in names}
            self._until = self._clock() + KEPT_SECONDS
        return self._models
