"""`ion route` and `ion personas`."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import track

from chassis.errors import IonError
from chassis.settings import stop
from gateway_http import translation
from ion.router.v1 import router_pb2
from standalone import show, voices
from standalone.client import Router

# Small enough for a progress bar that moves, large enough that calls cost nothing beside the work.
BATCH = 100


class Line(msgspec.Struct):
    """One line of the input; other members are ignored."""

    message: str
    id: str | int | None = None
    previous_persona: str | None = None


Item = Line | str  # a line that could not be read is the reason why


async def route_one(
    clients: AbstractAsyncContextManager[Router], message: str | None, key: str | None, previous: str, *, as_json: bool
) -> bool:
    if message is not None:
        request = router_pb2.RouteRequest(message=message, previous_persona=previous)
    else:
        request = router_pb2.RouteRequest(resonance_key=key or "", previous_persona=previous)
    async with clients as router:
        response = await router.route(request)
        if as_json:
            show.as_json_line(translation.route_response(response))
        else:
            shown = await voices.of(router)
            shown.who(response.routing, with_symbol=False)
            shown.why(response.routing, response.analysis)
    return True


async def route_file(clients: AbstractAsyncContextManager[Router], path: Path, *, as_json: bool) -> bool:
    """Route every line in order. False where one could not be routed; the others are all the same."""
    items = list(_read_lines(path))
    batches = list(_batches(items))
    counts: Counter[str] = Counter()
    async with clients as router:
        for batch in track(batches, "routing", console=show.err, transient=True, disable=not show.err.is_terminal):
            for answer in await _route_batch(router, batch):
                counts[answer.get("persona", "")] += 1
                if as_json:
                    show.as_json_line(answer)
    failed = counts.pop("", 0)
    if not as_json:
        show.persona_counts(counts, failed)
    return not failed


async def list_personas(clients: AbstractAsyncContextManager[Router], *, as_json: bool) -> bool:
    async with clients as router:
        show.personas((await router.list_personas()).personas, as_json=as_json)
    return True


def read_messages(path: Path) -> list[str]:
    """The messages of a file, at least one. Exit status 2 where it has none, or a line that is none."""
    items = list(_read_lines(path))
    for number, item in enumerate(items, start=1):
        if isinstance(item, str):
            stop(f"{path}, message {number}: {item}")
    if not items:
        stop(f"{path}: has no messages")
    return [item.message for item in items if isinstance(item, Line)]


def _read_lines(path: Path) -> Iterator[Item]:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        stop(f"{path}: {(error.strerror or 'cannot be read').lower()}")
    for line in data.splitlines():
        if line.strip():
            yield _parse(line)


def _parse(line: bytes) -> Item:
    try:
        return msgspec.json.decode(line, type=Line)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return 'must be a JSON object with a text "message"'


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch


async def _route_batch(router: Router, batch: list[Item]) -> list[dict[str, Any]]:
    """One object a line: the choice, or an `error`; with the line's id where it has one."""
    requests = [
        router_pb2.RouteRequest(message=item.message, previous_persona=item.previous_persona or "")
        for item in batch
        if isinstance(item, Line)
    ]
    results = iter((await router.batch_route(requests)).results if requests else ())
    return [_answer(item, next(results) if isinstance(item, Line) else None) for item in batch]


def _answer(item: Item, result: router_pb2.BatchRouteResult | None) -> dict[str, Any]:
    if isinstance(item, str) or result is None:
        return {"error": {"reason": "INVALID_LINE", "message": item}}
    given_id = {} if item.id is None else {"id": item.id}
    if result.HasField("failure"):
        reason = IonError(result.failure.reason).reason_name
        return given_id | {"error": {"reason": reason, "message": result.failure.message}}
    choice: dict[str, Any] = msgspec.to_builtins(translation.route_response(result.response))
    return given_id | choice
