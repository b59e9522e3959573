"""Models: one a persona, and one that leaves the choice to the router."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chassis.deadline import Deadline
from chassis.errors import IonError
from gateway_http.openai.models import KEPT_SECONDS, Catalogue, model_of, persona_of
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2


class ScriptedRouter:
    """Has the personas, and counts how often it is asked."""

    def __init__(self, *names: str) -> None:
        self.names: tuple[str, ...] | None = names
        self.asked = 0

    async def list_personas(self, _deadline: Deadline) -> router_pb2.ListPersonasResponse:
        self.asked += 1
        if self.names is None:
            raise IonError(Reason.REASON_ROUTER_UNAVAILABLE)
        return router_pb2.ListPersonasResponse(personas=[router_pb2.Persona(name=name) for name in self.names])


async def ids(catalogue: Catalogue) -> list[str]:
    return list(await catalogue.models(Deadline.after(5)))


async def test_the_router_is_asked_once_in_a_while():
    router, clock = ScriptedRouter("Elro", "Lua"), SimpleNamespace(now=100.0)
    catalogue = Catalogue(router, lambda: clock.now)
    for after in (0.0, 1.0, KEPT_SECONDS - 0.1):
        clock.now = 100.0 + after
        assert await ids(catalogue) == ["ion-auto", "ion-elro", "ion-lua"]
    assert router.asked == 1
    router.names = ("Elro", "Mina")
    clock.now = 100.0 + KEPT_SECONDS
    assert await ids(catalogue) == ["ion-auto", "ion-elro", "ion-mina"]


async def test_a_failure_is_not_kept():
    router = ScriptedRouter("Lua")
    names, router.names = router.names, None
    catalogue = Catalogue(router)
    with pytest.raises(IonError):
        await ids(catalogue)
    router.names = names
    assert await ids(catalogue) == ["ion-auto", "ion-lua"]


@pytest.mark.parametrize("persona", ["Lua", "Étoile", "루아", "New-One"])
def test_a_persona_and_its_model(persona):
    assert persona_of(model_of(persona)) == persona.lower()
