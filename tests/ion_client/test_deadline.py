"""`timeout_seconds` spans the whole call, travels with it, and ends it whatever the service does."""

from __future__ import annotations

import asyncio

import pytest

import ion_client

MESSAGE = "Why does this keep failing? I am so tired of it."
PATIENCE_SECONDS = 15  # of the test; the call's own deadline is far below


async def test_the_deadline_travels(scripted):
    async with scripted.connect(timeout_seconds=100) as ion:
        await ion.chat("hello", timeout_seconds=7)
        await ion.stream("hello", timeout_seconds=7).read()
        await ion.chat("hello")
    short, streamed, usual = (call.remaining_seconds for call in scripted.router.calls)
    assert 0 < short <= 8  # gRPC rounds it up as it goes
    assert 0 < streamed <= 8
    assert 8 < usual <= 101


async def test_a_service_that_answers_nothing_is_not_waited_for(scripted):
    async with scripted.way() as way, scripted.connect_by(way) as ion:
        await ion.personas()  # the connection is there
        way.frozen = True
        for call in (ion.chat("hello", timeout_seconds=0.3), ion.stream("hello", timeout_seconds=0.3).read()):
            async with asyncio.timeout(PATIENCE_SECONDS):
                with pytest.raises(ion_client.DeadlineExceeded) as raised:
                    await call
            assert raised.value.reason == "DEADLINE_EXCEEDED"


async def test_a_stream_ends_at_its_deadline_with_what_has_come(ion, vertex, unique):
    vertex.pieces(["Let us ", "see."])
    vertex.hold_after_pieces(1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(ion_client.Interrupted) as raised:
            await ion.stream(unique(MESSAGE), timeout_seconds=1).read()
    assert (raised.value.text, raised.value.reason) == ("Let us ", "DEADLINE_EXCEEDED")


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An event stream that stays alive and says nothing."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
    try:
        while not writer.is_closing():
            writer.write(b": keep-alive\n\n")
            await writer.drain()
            await asyncio.sleep(0.02)
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("kind", ["sync http", "async http"], indirect=True)
async def test_heartbeats_do_not_keep_a_stream_beyond_its_deadline(scripted):
    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        scripted.http = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with scripted.connect() as ion, asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(ion_client.DeadlineExceeded):
                await ion.stream("hello", timeout_seconds=0.3).read()


@pytest.mark.parametrize("seconds", [0, -1, 301, float("nan")])
def test_a_timeout_out_of_bounds_is_refused(seconds):
    with pytest.raises(ValueError, match="timeout_seconds must be above 0 and at most 300"):
        ion_client.connect("grpc://127.0.0.1", timeout_seconds=seconds)
    with ion_client.connect("grpc://127.0.0.1") as ion, pytest.raises(ValueError, match="timeout_seconds"):
        ion.personas(timeout_seconds=seconds)
