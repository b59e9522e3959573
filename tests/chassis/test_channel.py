"""Outgoing channels: who is called, who is called again, and what is carried along."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import grpc
import grpc.aio
import pytest
from opentelemetry.trace import SpanKind

from chassis.channel import invoke, invoke_stream, open_channel
from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, IonError
from chassis.observability import tracing
from chassis.server import CallGuard, new_server
from ion.error.v1.reason_pb2 import Reason
from tests.chassis.conftest import SERVICE, Hanging, Serve

UNARY = f"{SERVICE}/Unary"
STREAM = f"{SERVICE}/Stream"


async def start(handle, port: int = 0) -> tuple[grpc.aio.Server, int]:
    server = new_server()
    server.add_registered_method_handlers(SERVICE, {"Unary": grpc.unary_unary_rpc_method_handler(handle)})
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, port


async def call(channel: grpc.aio.Channel, seconds: float = 5.0, *, wait_for_ready: bool = False):
    return await invoke(
        channel.unary_unary(f"/{UNARY}"),
        UNARY,
        b"",
        Deadline.after(seconds),
        unreachable=Reason.REASON_ROUTER_UNAVAILABLE,
        wait_for_ready=wait_for_ready,
    )


def stream(method, seconds: float = 5.0):
    return invoke_stream(method, STREAM, b"", Deadline.after(seconds), unreachable=Reason.REASON_ROUTER_UNAVAILABLE)


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
        seen["current"] = tracing.current()
        return b""

    server, port = await start(handle)
    mine = tracing.enter("req-7", f"00-{'a' * 32}-{'b' * 16}-00", "vendor=1", "tier=gold")
    async with open_channel(f"127.0.0.1:{port}") as channel:
        await call(channel)
    await server.stop(None)
    assert seen["x-request-id"] == "req-7"
    assert seen["traceparent"] == mine.traceparent
    assert seen["current"] == mine
    assert 4 < seen["remaining"] <= 5.01


# Streams, in this process and over TCP.


async def test_a_stream_is_read_to_its_end_with_ids_and_deadline_carried_on(serve: Serve):
    seen = {}

    async def handle(request, context):
        yield b"1"
        seen.update(dict(context.invocation_metadata()), remaining=context.time_remaining())
        yield b"2"

    echo = await serve(stream=handle, interceptors=[CallGuard()])
    mine = tracing.enter("req-7", None)
    assert [message async for message in stream(echo.stream)] == [b"1", b"2"]
    assert (seen["x-request-id"], seen["traceparent"]) == ("req-7", mine.traceparent)
    assert 4 < seen["remaining"] <= 5.01


async def test_a_stream_that_fails_after_a_message_says_why(serve: Serve):
    async def handle(request, context):
        yield b"1"
        raise IonError(Reason.REASON_MODEL_INTERRUPTED, retry_after_seconds=3)

    messages = stream((await serve(stream=handle, interceptors=[CallGuard()])).stream)
    assert await anext(messages) == b"1"
    with pytest.raises(IonError) as caught:
        await anext(messages)
    assert (caught.value.reason, caught.value.retry_after_seconds) == (Reason.REASON_MODEL_INTERRUPTED, 3)


async def test_the_deadline_is_for_the_whole_stream(serve: Serve):
    hanging = Hanging()

    async def handle(request, context):
        yield b"1"
        await hanging(request, context)

    messages = stream((await serve(stream=handle, interceptors=[CallGuard()])).stream, 0.2)
    assert await anext(messages) == b"1"
    with pytest.raises(IonError) as caught:
        await anext(messages)
    assert caught.value.reason == Reason.REASON_DEADLINE_EXCEEDED
    await asyncio.wait_for(hanging.cancelled.wait(), 5)


async def test_no_stream_is_begun_after_the_deadline(serve: Serve):
    with pytest.raises(DeadlineExceeded):
        await anext(stream((await serve()).stream, 0))


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_whoever_leaves_a_stream_cancels_the_call_below(serve: Serve, leave):
    hanging, calls = Hanging(), []

    async def handle(request, context):
        yield b"1"
        await hanging(request, context)

    echo = await serve(stream=handle, interceptors=[CallGuard()])

    def method(*arguments, **options):
        calls.append(echo.stream(*arguments, **options))  # kept, so that no garbage collection cancels it
        return calls[-1]

    async def read():
        async with aclosing(stream(method)) as messages:
            async for _ in messages:
                await hanging.started.wait()
                if leave == "close":
                    break

    reading = asyncio.create_task(read())
    await asyncio.wait_for(hanging.started.wait(), 5)
    if leave == "cancel":
        reading.cancel()
    await asyncio.wait([reading])
    await asyncio.wait_for(hanging.cancelled.wait(), 5)
    assert calls[0].cancelled()


@pytest.mark.parametrize(("begun", "calls"), [(False, 3), (True, 1)])
async def test_a_stream_that_has_begun_is_not_repeated(begun, calls):
    """Though the service config has its call tried again."""
    count = 0

    async def handle(request, context):
        nonlocal count
        count += 1
        if begun:
            yield b"1"
        await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    server = grpc.aio.server()
    server.add_registered_method_handlers(SERVICE, {"Stream": grpc.unary_stream_rpc_method_handler(handle)})
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        messages = stream(channel.unary_stream(f"/{STREAM}"))
        if begun:
            assert await anext(messages) == b"1"
        with pytest.raises(IonError) as caught:
            await anext(messages)
    await server.stop(None)
    assert caught.value.reason == Reason.REASON_ROUTER_UNAVAILABLE
    assert count == calls


async def test_a_stream_has_one_span_until_its_last_message_that_its_reader_is_not_in(serve: Serve, spans):
    async def handle(request, context):
        yield b"1"
        yield b"2"

    mine = tracing.enter("req-7", None)
    messages = stream((await serve(stream=handle)).stream)
    async for _ in messages:
        assert tracing.current() == mine
        assert not spans.get_finished_spans()
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == (STREAM, SpanKind.CLIENT)


async def test_a_stream_may_be_closed_by_another_task_than_reads_it(serve: Serve, spans):
    hanging = Hanging()

    async def handle(request, context):
        yield b"1"
        await hanging(request, context)

    messages = stream((await serve(stream=handle)).stream)
    await asyncio.create_task(_next(messages))
    await asyncio.create_task(messages.aclose())
    await asyncio.wait_for(hanging.cancelled.wait(), 5)
    assert len(spans.get_finished_spans()) == 1


async def _next(messages):
    return await anext(messages)


# Compression on the wire.


class Wire:
    """A relay that counts the bytes of each direction."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.sent = 0
        self.received = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        await asyncio.gather(self._pump(reader, far_writer, "sent"), self._pump(far_reader, writer, "received"))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        try:
            while chunk := await reader.read(1 << 16):
                setattr(self, name, getattr(self, name) + len(chunk))
                writer.write(chunk)
        finally:
            writer.close()


@pytest.fixture
async def wire():
    """`await wire(request, answer)`: bytes sent and received for one call of that many bytes each way."""

    async def carried(asked: bytes, answer: bytes) -> tuple[int, int]:
        async def handle(request, context):
            assert request == asked
            return answer

        server, port = await start(handle)
        counting = Wire(port)
        relay = await asyncio.start_server(counting, "127.0.0.1", 0)
        async with open_channel(f"127.0.0.1:{relay.sockets[0].getsockname()[1]}") as channel:
            method = channel.unary_unary(f"/{UNARY}")
            unreachable = Reason.REASON_ROUTER_UNAVAILABLE
            got = await invoke(method, UNARY, asked, Deadline.after(10), unreachable=unreachable)
        await server.stop(None)
        relay.close()
        assert got == answer
        return counting.sent, counting.received

    return carried


SMALL, LARGE = b"a" * (16 << 10), b"a" * ((16 << 10) + 1)


@pytest.mark.parametrize(("asked", "answer"), [(SMALL, SMALL), (LARGE, SMALL), (SMALL, LARGE), (LARGE, LARGE)])
async def test_messages_above_16_kib_are_compressed_each_way_and_no_others(wire, asked, answer):
    """These bytes compress to next to nothing; what else a call carries is less than a kilobyte."""
    sent, received = await wire(asked, answer)
    assert (sent < 2048) == (asked is LARGE)
    assert (received < 2048) == (answer is LARGE)
    assert max(sent, received) < len(LARGE) + 2048
