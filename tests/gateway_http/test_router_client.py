"""What is left of a stream that has said all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from chassis.errors import IonError
from gateway_http import router_client
from gateway_http.router_client import read_to_end
from ion.error.v1.reason_pb2 import Reason


async def stays_open() -> AsyncGenerator[int, None]:
    await asyncio.Event().wait()
    yield 1


async def fails() -> AsyncGenerator[int, None]:
    yield 1
    raise IonError(Reason.REASON_INTERNAL)


async def test_its_end_is_not_waited_for_for_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(router_client, "_END_SECONDS", 0.01)
    async with asyncio.timeout(5):
        await read_to_end(stays_open())


async def test_how_it_ends_changes_nothing():
    await read_to_end(fails())


async def test_who_is_cancelled_meanwhile_is_cancelled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(router_client, "_END_SECONDS", 60)
    reading = asyncio.create_task(read_to_end(stays_open()))
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
