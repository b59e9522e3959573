import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager, nullcontext, suppress

import grpc
import grpc.aio
import psutil
import pytest

from llm_gateway.backends.vertex import VertexBackend
from llm_gateway.backends.vertex_channels import (
    CALLS_BEFORE_ANOTHER,
    CONNECTIONS_PER_LOCATION,
    ConnectionPool,
    endpoint_of,
)
from llm_gateway.generation import ModelUnavailable
from tests.fake_vertex import FakeVertex
from tests.llm_gateway.backends.vertex_calls import LOCATION, ask, connect, open_stream
from tests.llm_gateway.scripted_backend import asking, until

# As Google's endpoints do.
CALLS_A_CONNECTION_TAKES = 100


@pytest.mark.parametrize(
    ("location", "endpoint"),
    [
        ("us-central1", "us-central1-aiplatform.googleapis.com"),
        ("us", "aiplatform.us.rep.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("global", "aiplatform.googleapis.com"),
    ],
)
def test_googles_own_endpoints(location, endpoint):
    assert endpoint_of(location) == endpoint


def connections_to(port: int) -> int:
    connections = psutil.Process().net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr.port == port and one.status == "ESTABLISHED" for one in connections)


async def stream(backend) -> None:
    async with aclosing(open_stream(backend)) as events:
        async for _ in events:
            pass


async def stream_and_close(backend) -> None:
    async with aclosing(open_stream(backend)) as events:
        await anext(events)


@pytest.mark.parametrize("call", [ask, stream, stream_and_close])
@pytest.mark.parametrize("fails", [False, True])
async def test_calls_that_come_one_by_one_share_a_connection(vertex, backend, call, fails):
    if fails:
        vertex.fail(grpc.StatusCode.UNAVAILABLE)
    for _ in range(CALLS_BEFORE_ANOTHER + 1):
        with pytest.raises(ModelUnavailable) if fails else nullcontext():
            await call(backend)
    assert connections_to(vertex.port) == 1


async def test_calls_at_once_get_another_connection_and_all_are_closed_together(vertex):
    backend = await connect({LOCATION: vertex.endpoint})
    vertex.hang()
    tasks = [asyncio.create_task(ask(backend)) for _ in range(CALLS_BEFORE_ANOTHER + 1)]
    await vertex.wait_for_calls(len(tasks))
    assert connections_to(vertex.port) == 2
    vertex.release()
    await asyncio.gather(*tasks)
    await backend.close()
    await until(lambda: connections_to(vertex.port) == 0)


async def test_calls_are_spread_over_no_more_connections_than_a_location_may_have():
    pool = ConnectionPool(lambda: grpc.aio.insecure_channel("127.0.0.1:1"))
    calls = 2 * CALLS_BEFORE_ANOTHER * CONNECTIONS_PER_LOCATION
    with ExitStack() as lent:
        connections = {lent.enter_context(pool.lend()) for _ in range(calls)}
        assert [connection.calls for connection in connections] == [
            calls / CONNECTIONS_PER_LOCATION
        ] * CONNECTIONS_PER_LOCATION
    assert [connection.calls for connection in connections] == [0] * CONNECTIONS_PER_LOCATION
    await pool.close()


class CountingServer:
    """Takes as many calls a connection as Google does, and holds them."""

    def __init__(self) -> None:
        self.calls = 0
        self.may_end = asyncio.Event()
        self._server = grpc.aio.server(options=[("grpc.max_concurrent_streams", CALLS_A_CONNECTION_TAKES)])
        handlers = {"GenerateContent": grpc.unary_unary_rpc_method_handler(self._hold)}
        service = "google.cloud.aiplatform.v1.PredictionService"
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])

    async def start(self) -> int:
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port

    async def stop(self) -> None:
        await self._server.stop(None)

    async def _hold(self, _: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.calls += 1
        await self.may_end.wait()
        return b""


async def test_more_calls_are_under_way_than_one_connection_takes():
    server = CountingServer()
    backend = await connect({LOCATION: f"127.0.0.1:{await server.start()}"})
    wanted = CONNECTIONS_PER_LOCATION * CALLS_A_CONNECTION_TAKES
    tasks = [asyncio.create_task(ask(backend, timeout_seconds=30.0)) for _ in range(wanted)]
    await until(lambda: server.calls == wanted, seconds=10.0)
    server.may_end.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    await backend.close()
    await server.stop()


HEADERS, SETTINGS, GOAWAY = 1, 4, 7
ACK = 1


@asynccontextmanager
async def leaving_server(on_call: Callable[[], None]) -> AsyncIterator[str]:
    """Speaks HTTP/2 as far as to go away at each call, which it says it has not taken. By the rules of HTTP/2 such a
    call may be sent again, and gRPC would."""

    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
        writer.write(_frame(SETTINGS))
        while header := await reader.read(9):
            await reader.readexactly(int.from_bytes(header[:3], "big"))
            kind, flags = header[3], header[4]
            if kind == SETTINGS and not flags & ACK:
                writer.write(_frame(SETTINGS, flags=ACK))
            if kind == HEADERS:
                on_call()
                last_stream_taken, no_error = bytes(4), bytes(4)
                writer.write(_frame(GOAWAY, payload=last_stream_taken + no_error))
                break
        writer.close()

    async with await asyncio.start_server(leave, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def _frame(kind: int, *, flags: int = 0, payload: bytes = b"") -> bytes:
    whole_connection = bytes(4)
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + whole_connection + payload


@pytest.mark.parametrize("call", [ask, stream])
async def test_an_attempt_is_one_call_even_where_the_server_has_not_taken_it(call):
    calls: list[None] = []
    async with leaving_server(lambda: calls.append(None)) as endpoint:
        backend = await connect({LOCATION: endpoint})
        with pytest.raises(ModelUnavailable):
            await call(backend)
        await backend.close()
    assert len(calls) == 1


async def test_a_far_location_has_time_to_answer_the_first_call():
    """Set-up over an ocean takes three round trips of more than 100 ms each."""
    async with FakeVertex(location="us-central1") as vertex, far_from(vertex) as target:
        backend = await VertexBackend.connect(
            project="p", model="m", locations=["us-central1"], endpoints={"us-central1": target}, insecure=True
        )
        assert (await backend.generate(asking(), location="us-central1", timeout_seconds=10)).text
        await backend.close()


@asynccontextmanager
async def far_from(vertex: FakeVertex) -> AsyncIterator[str]:
    """A proxy in front of it that passes on what it answers 300 ms later."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        near_reader, near_writer = await asyncio.open_connection("127.0.0.1", vertex.port)
        await asyncio.gather(pump(reader, near_writer, 0.0), pump(near_reader, writer, 0.3))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_seconds: float) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await asyncio.sleep(delay_seconds)
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
