"""Looks at the metrics of a process: what it told at one moment, and what has changed between two."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import httpx
from prometheus_client.parser import text_string_to_metric_families

LOOK_SECONDS: Final = 2.0  # that an address is waited for
_GROWING: Final = ("_total", "_bucket", "_count", "_sum")
_REFUSED: Final[Mapping[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "wants a key: ION_API_KEY",
    HTTPStatus.FORBIDDEN: 'wants a key of the tier "admin"',
    HTTPStatus.NOT_FOUND: "has no metrics there, or they are off",
}

# A metric by its name for Prometheus, and the labels of one of its series.
Series = tuple[str, frozenset[tuple[str, str]]]


class KeyOnDemand(httpx.Auth):
    """Shows the key to addresses that have refused a request without one, and to no others."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization
        self._asked_for: set[httpx.URL] = set()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        if request.url not in self._asked_for:
            response = yield request
            if response.status_code != HTTPStatus.UNAUTHORIZED:
                return
            self._asked_for.add(request.url)
        request.headers["Authorization"] = self._authorization
        yield request


class Unseen(Exception):
    """Nothing is to be seen there; the text says why."""


@dataclass(frozen=True, slots=True)
class Look:
    """`taken_at` by time.monotonic. `instance` is another one after each start of the process."""

    taken_at: float
    service: str
    instance: str
    values: Mapping[Series, float]


@dataclass(slots=True)
class Watched:
    """One address. `problem`: why the last look saw nothing, else ""."""

    url: str
    problem: str = ""
    before: Look | None = field(default=None, repr=False)
    latest: Look | None = field(default=None, repr=False)

    @property
    def has_restarted(self) -> bool:
        """Between the two looks."""
        return bool(self.before and self.latest and self.before.instance != self.latest.instance)

    def rates(self) -> dict[Series, float]:
        """Growth a second between the two looks; none of a process that is away or was seen once."""
        if self.problem or not self.before or not self.latest:
            return {}
        return rates(self.before, self.latest)

    async def look(self, http: httpx.AsyncClient) -> None:
        try:
            seen = await take(http, self.url)
        except Unseen as error:
            self.problem = str(error)
            return
        self.problem = ""
        self.before, self.latest = self.latest, seen


async def look_at_all(http: httpx.AsyncClient, watched: list[Watched]) -> None:
    """One look at each, all at once."""
    await asyncio.gather(*(each.look(http) for each in watched))


async def take(http: httpx.AsyncClient, url: str) -> Look:
    """Raises Unseen."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            response = await http.get(url)
    except (TimeoutError, httpx.TimeoutException):
        raise Unseen(f"does not answer within {LOOK_SECONDS:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unseen("cannot be reached") from error
    if response.status_code != HTTPStatus.OK:
        raise Unseen(_REFUSED.get(response.status_code, f"answers with {response.status_code}"))
    return read(response.text, time.monotonic())


def read(text: str, taken_at: float) -> Look:
    """Of Prometheus' text format. Raises Unseen."""
    try:
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    except (ValueError, KeyError, IndexError) as error:
        raise Unseen("answers with something else than metrics") from error
    if not samples:
        raise Unseen("has no metrics yet")
    about = next((sample.labels for sample in samples if sample.name == "target_info"), {})
    values = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    return Look(taken_at, about.get("service_name", ""), about.get("service_instance_id", ""), values)


def rates(before: Look, after: Look) -> dict[Series, float]:
    """What counts up, by how much a second. What was not there before began at 0, as all of a process that has started
    anew, and a count that went back."""
    seconds = max(after.taken_at - before.taken_at, 1e-9)
    known = before.values if before.instance == after.instance else {}
    return {
        series: (value - _base(known.get(series, 0.0), value)) / seconds
        for series, value in after.values.items()
        if series[0].endswith(_GROWING)
    }


def _base(before: float, after: float) -> float:
    return before if before <= after else 0.0
