"""Personas, and which of them a message is for."""

from __future__ import annotations

from litestar import get, post
from litestar.datastructures import State
from litestar.params import JSONBody

from chassis.errors import InvalidField
from gateway_http import schemas, translation
from gateway_http.parameters import TimeoutHeader, deadline_of
from ion.router.v1 import router_pb2


@post("/route", status_code=200, tags=["routing"])
async def route(
    state: State, data: JSONBody[schemas.RouteRequest], timeout_seconds: TimeoutHeader = None
) -> schemas.RouteResponse:
    """Choose a persona for a message or a resonance key, without a reply, and say why."""
    if (data.message is None) == (data.resonance_key is None):
        raise InvalidField("message", "exactly one of message and resonance_key must be given")
    previous = data.previous_persona or ""
    if data.message is not None:
        message = router_pb2.RouteRequest(message=data.message, previous_persona=previous)
    else:
        message = router_pb2.RouteRequest(resonance_key=data.resonance_key or "", previous_persona=previous)
    return translation.route_response(await state.router.route(message, deadline_of(state, timeout_seconds)))


@get("/personas", tags=["routing"])
async def personas(state: State, timeout_seconds: TimeoutHeader = None) -> schemas.Personas:
    """All personas, by name."""
    listed = await state.router.list_personas(deadline_of(state, timeout_seconds))
    return schemas.Personas([translation.persona(item) for item in listed.personas])
