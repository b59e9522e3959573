"""Whether something is there, and when it is looked at."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from chassis import presence
from chassis.presence import Presence


@pytest.fixture
def present() -> Presence:
    return Presence("The lighthouse")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_each_change_is_said_once(present: Presence, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    present.find()
    for _ in range(2):
        present.lose("ConnectionError", absences=present.absences)
    for _ in range(2):
        present.find()
    assert said(caplog) == ["The lighthouse is away", "The lighthouse is connected again"]
    assert caplog.records[0].cause == "ConnectionError"


def test_another_reason_is_said_too(present: Presence, caplog: pytest.LogCaptureFixture) -> None:
    present.lose("ConnectionError", absences=0)
    present.lose("NewerTables", absences=0, text="cannot be used")
    assert said(caplog) == ["The lighthouse is away", "The lighthouse cannot be used"]


def test_what_failed_before_it_was_found_again_is_old_news(present: Presence) -> None:
    present.find()
    before = present.absences
    present.lose("ConnectionError", absences=before)
    present.find()
    present.lose("ConnectionError", absences=before)
    assert present.available


def test_refusals_are_said_once_until_it_does_what_it_is_asked(
    present: Presence, caplog: pytest.LogCaptureFixture
) -> None:
    present.find()
    for _ in range(2):
        present.refuse("Full")
    present.use()
    present.refuse("Full")
    assert present.available
    assert said(caplog) == 2 * ["The lighthouse refuses"]


async def test_changes_are_told_as_they_come(present: Presence) -> None:
    async with aclosing(present.changes()) as changes:
        first = asyncio.create_task(anext(changes))
        await asyncio.sleep(0)
        assert not first.done()
        present.find()
        assert await first
        second = asyncio.create_task(anext(changes))
        present.find()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not second.done()
        present.lose("ConnectionError", absences=present.absences)
        assert not await second
        present.find()
        assert await anext(changes)


async def test_who_asks_waits_for_the_first_look_and_brings_it_on(
    present: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "QUIET_SECONDS", 3600.0)
    asking = asyncio.create_task(present.wait_until_known())
    async with asyncio.timeout(20):
        await present.wait_for_first_look()
    assert not asking.done()
    present.find()
    assert await asking


async def test_first_look_waits_until_the_process_has_started(
    present: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(presence, "LATE_SECONDS", 0.1)
    looking = asyncio.create_task(present.wait_for_first_look())
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - what a start does
    for _ in range(10):
        await asyncio.sleep(0)
    assert not looking.done()
    await looking


async def test_while_it_is_there_it_is_looked_at_where_somebody_wants_it(
    present: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "LOOK_SECONDS", 3600.0)
    present.find()
    looking = asyncio.create_task(present.wait_for_look())
    await asyncio.sleep(0)
    assert not looking.done()
    present.want_look()
    await looking


async def test_pauses_double_while_it_is_away(present: Presence, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(presence.asyncio, "sleep", sleep)
    monkeypatch.setattr(presence.random, "uniform", lambda low, high: high)
    present.lose("ConnectionError", absences=0)
    for _ in range(7):
        await present.wait_for_look()
    present.find()
    present.lose("ConnectionError", absences=0)
    await present.wait_for_look()
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 0.1]
