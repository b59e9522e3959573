"""`timeout_seconds` spans the whole call, travels with it, and ends it whatever the service does."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

import ion_client
from ion_client._http.watchdog import Watch, Watchdog
from ion_client._retry import Deadline

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


def dripping(*, chunked: bool):
    """A server whose answers go on, say nothing, and never end."""
    length = b"transfer-encoding: chunked\r\n" if chunked else b""
    drop = b"e\r\n: keep-alive\n\n\r\n" if chunked else b": keep-alive\n\n"

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n%b\r\n" % length)
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    return asyncio.start_server(drip, "127.0.0.1", 0)


@pytest.mark.parametrize("kind", ["sync http", "async http"], indirect=True)
@pytest.mark.parametrize("chunked", [True, False])
async def test_drops_of_an_answer_do_not_keep_a_call_beyond_its_deadline(scripted, chunked):
    async with await dripping(chunked=chunked) as server:
        scripted.http = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with scripted.connect() as ion, asyncio.timeout(PATIENCE_SECONDS):
            for call in (ion.stream("hello", timeout_seconds=0.3).read(), ion.chat("hello", timeout_seconds=0.3)):
                with pytest.raises(ion_client.DeadlineExceeded):
                    await call


def dripping_heads(connections: list[object]):
    """A server whose first answer on each connection is whole; the heads of all others never end."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nx-drops: ")
            for _ in range(50 * PATIENCE_SECONDS):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        writer.close()

    return asyncio.start_server(drip, "127.0.0.1", 0)


@pytest.mark.parametrize("kind", ["sync http", "async http"], indirect=True)
async def test_drops_of_a_head_do_not_keep_a_call_beyond_its_deadline(scripted):
    connections: list[object] = []
    async with await dripping_heads(connections) as server:
        scripted.http = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with scripted.connect() as ion, asyncio.timeout(PATIENCE_SECONDS / 2):
            for ask in (ion.chat, lambda text, **fields: ion.stream(text, **fields).read()):
                with pytest.raises(ion_client.NotFound):
                    await ion.session("talk")
                with pytest.raises(ion_client.DeadlineExceeded):
                    await ask("hello", timeout_seconds=0.3)
    assert len(connections) == 2  # each was used again


def test_a_deadline_does_not_end_what_comes_after_its_call():
    """Connections are used again."""
    watchdog = Watchdog()
    (reused, far), (late, other_far) = socket.socketpair(), socket.socketpair()
    with reused, far, late, other_far:
        with watchdog.until(Deadline.after(0.05)) as watch:
            watch.move_to(reused)
        with suppress(ion_client.DeadlineExceeded), watchdog.until(Deadline.after(0.1)) as watch:
            watch.move_to(late)
            assert other_far.recv(1) == b""  # the watchdog has come past both
        assert watch.cut
        reused.sendall(b"x")
        assert far.recv(1) == b"x"
    watchdog.close()


def test_a_connection_that_comes_after_the_deadline_is_ended_at_once():
    connection, far = socket.socketpair()
    with connection, far:
        watch = Watch(0.0)
        watch.cut_off()
        watch.move_to(connection)
        assert far.recv(1) == b""


@pytest.mark.parametrize("seconds", [0, -1, 301, float("nan")])
def test_a_timeout_out_of_bounds_is_refused(seconds):
    with pytest.raises(ValueError, match="timeout_seconds must be above 0 and at most 300"):
        ion_client.connect("grpc://127.0.0.1", timeout_seconds=seconds)
    with ion_client.connect("grpc://127.0.0.1") as ion, pytest.raises(ValueError, match="timeout_seconds"):
        ion.personas(timeout_seconds=seconds)
