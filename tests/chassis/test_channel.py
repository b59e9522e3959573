"""Outgoing channels: who is called, who is called again, and what is carried along."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from chassis import telemetry
from chassis.channel import invoke, open_channel
from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from chassis.server import new_server
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.conftest import SERVICE

METHOD = f"/{SERVICE}/Unary"


async def start(handle, port: int = 0) -> tuple[grpc.aio.Server, int]:
    server = new_server()
    server.add_registered_method_handlers(SERVICE, {"Unary": grpc.unary_unary_rpc_method_handler(handle)})
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, port


async def call(channel: grpc.aio.Channel, seconds: float = 5.0, *, wait_for_ready: bool = False):
    return await invoke(
        channel.unary_unary(METHOD),
        METHOD,
        b"",
        Deadline.after(seconds),
        unreachable=Reason.REASON_ROUTER_UNAVAILABLE,
        wait_for_ready=wait_for_ready,
    )


async def test_calls_are_spread_over_all_addresses():
    counts = [0, 0]

    def counting(number):
        async def handle(request, context):
            counts[number] += 1
            return b""

        return handle

    (first, one), (second, two) = await start(counting(0)), await start(counting(1))
    async with open_channel(f"ipv4:127.0.0.1:{one},127.0.0.1:{two}") as channel:
        async with asyncio.timeout(5):
            while not all(counts):
                await call(channel, wait_for_ready=True)
        counts[:] = [0, 0]
        for _ in range(10):
            await call(channel)
    await asyncio.gather(first.stop(None), second.stop(None))
    assert counts == [5, 5]


async def test_unavailable_said_by_a_servicer_is_not_tried_again():
    """Attempts at the model have one owner."""
    calls = 0

    async def handle(request, context):
        nonlocal calls
        calls += 1
        raise IonError(Reason.REASON_MODEL_UNAVAILABLE)

    server, port = await start(handle)
    async with open_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(IonError) as caught:
            await call(channel)
    await server.stop(None)
    assert caught.value.reason == Reason.REASON_MODEL_UNAVAILABLE
    assert calls == 1


async def test_nobody_there_is_unreachable_and_a_later_start_is_found():
    async def handle(request, context):
        return b"here"

    server, port = await start(handle)
    await server.stop(None)
    async with open_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(IonError) as caught:
            await call(channel)
        assert caught.value.reason == Reason.REASON_ROUTER_UNAVAILABLE
        again, _ = await start(handle, port)
        assert await call(channel, wait_for_ready=True) == b"here"
        await again.stop(None)


async def test_a_deadline_that_has_passed_calls_nobody():
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(DeadlineExceeded):
            await call(channel, 0)


async def test_ids_and_deadline_are_carried_on():
    seen = {}

    async def handle(request, context):
        seen.update(dict(context.invocation_metadata()))
        seen["remaining"] = context.time_remaining()
        seen["current"] = telemetry.current()
        return b""

    server, port = await start(handle)
    mine = telemetry.enter("req-7", None)
    async with open_channel(f"127.0.0.1:{port}") as channel:
        await call(channel)
    await server.stop(None)
    assert seen["x-request-id"] == "req-7"
    assert seen["traceparent"] == mine.traceparent
    assert seen["current"] == mine
    assert 4 < seen["remaining"] <= 5.01
