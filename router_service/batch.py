"""Routes many messages at once, between other calls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

from chassis.errors import InvalidField, IonError, to_failure
from ion.router.v1 import router_pb2
from router_service import translation
from router_service.analysis import Analysis, Reader
from router_service.decisions import Decisions
from router_service.personas import PersonaTable
from router_service.reading import Reading, reading_of_key, reading_of_message
from router_service.requests import MAX_MESSAGE_CHARACTERS, Asked, read_route
from router_service.routing import choose_all

MAX_BATCH: Final = 1000
# Of a batch, between two turns of the event loop: about 1 ms, whether they are many short messages or a few long ones.
MAX_TOGETHER: Final = 16
MAX_CHARACTERS_TOGETHER: Final = 4000


async def route_batch(
    requests: Sequence[router_pb2.RouteRequest], personas: PersonaTable, reader: Reader, decisions: Decisions
) -> router_pb2.BatchRouteResponse:
    """One result a request, in order. Raises InvalidField for a batch that is empty or too large."""
    if not 1 <= len(requests) <= MAX_BATCH:
        raise InvalidField("requests", f"must have 1 to {MAX_BATCH} entries")
    response = router_pb2.BatchRouteResponse()
    for chunk in chunks(requests):
        response.results.extend(_route_all(chunk, personas, reader, decisions))
        await asyncio.sleep(0)  # other calls have their turn
    return response


def chunks(requests: Sequence[router_pb2.RouteRequest]) -> Iterator[Sequence[router_pb2.RouteRequest]]:
    """The requests in order, as many at a time as fit between two turns of the event loop; at least one."""
    start, characters = 0, 0
    for at, request in enumerate(requests):
        length = min(len(request.message), MAX_MESSAGE_CHARACTERS)
        if at > start and (at - start == MAX_TOGETHER or characters + length > MAX_CHARACTERS_TOGETHER):
            yield requests[start:at]
            start, characters = at, 0
        characters += length
    yield requests[start:]


def _route_all(
    requests: Sequence[router_pb2.RouteRequest], personas: PersonaTable, reader: Reader, decisions: Decisions
) -> list[router_pb2.BatchRouteResult]:
    asked = [_asked_or_error(request, personas) for request in requests]
    messages = [item.message for item in asked if isinstance(item, Asked) and item.message]
    analyses = iter(reader.read_all(messages))
    readings = [_reading(item, analyses) for item in asked if isinstance(item, Asked)]
    routings = choose_all([reading.signals for reading in readings], personas) if readings else []
    for routing in routings:
        decisions.count(routing)
    responses = map(translation.route_response, routings, readings, [personas] * len(readings))
    return [
        router_pb2.BatchRouteResult(failure=to_failure(item))
        if isinstance(item, IonError)
        else router_pb2.BatchRouteResult(response=next(responses))
        for item in asked
    ]


def _asked_or_error(request: router_pb2.RouteRequest, personas: PersonaTable) -> Asked | IonError:
    try:
        return read_route(request, personas)
    except IonError as error:
        return error


def _reading(asked: Asked, analyses: Iterator[Analysis]) -> Reading:
    """The analyses are those of the messages, in order: a key has none."""
    if not asked.message:
        return reading_of_key(asked.key, previous=asked.previous)
    return reading_of_message(next(analyses), asked.message, previous=asked.previous)
