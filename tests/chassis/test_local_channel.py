"""The in-process channel behaves as one over TCP: each test runs over both."""

from __future__ import annotations

import asyncio
import contextvars

import grpc
import grpc.aio
import pytest

from chassis.local_channel import LocalServer
from chassis.server import CallGuard
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from tests.chassis.conftest import Hanging, Serve

StatusCode = grpc.StatusCode


async def failure(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def coroutine(handler: Hanging):
    async def handle(request, context):
        return await handler(request, context)

    return handle


async def test_answer(serve: Serve):
    async def upper(request, context):
        return request.upper()

    echo = await serve(unary=upper)
    assert await echo.unary(b"hello") == b"HELLO"


async def test_metadata_goes_both_ways(serve: Serve):
    async def handle(request, context):
        given = dict(context.invocation_metadata())
        await context.send_initial_metadata((("early", given["x-asked"]),))
        context.set_trailing_metadata((("late", given["x-asked"]),))
        return b""

    call = (await serve(unary=handle)).unary(b"", metadata=(("x-asked", "yes"),))
    await call
    assert (await call.initial_metadata())["early"] == "yes"
    assert (await call.trailing_metadata())["late"] == "yes"
    assert await call.code() is StatusCode.OK


async def test_abort_carries_code_details_and_trailers(serve: Serve):
    async def handle(request, context):
        await context.abort(StatusCode.NOT_FOUND, "no such thing", (("why", "because"),))

    error = await failure((await serve(unary=handle)).unary(b""))
    assert (error.code(), error.details()) == (StatusCode.NOT_FOUND, "no such thing")
    assert error.trailing_metadata()["why"] == "because"


async def test_status_set_by_the_servicer(serve: Serve):
    async def handle(request, context):
        context.set_code(StatusCode.OUT_OF_RANGE)
        context.set_details("too far")
        return b""

    error = await failure((await serve(unary=handle)).unary(b""))
    assert (error.code(), error.details()) == (StatusCode.OUT_OF_RANGE, "too far")


async def test_exception_in_a_handler_is_unknown(serve: Serve):
    async def handle(request, context):
        raise ValueError("oops")

    assert (await failure((await serve(unary=handle)).unary(b""))).code() is StatusCode.UNKNOWN


async def test_unknown_method(serve: Serve):
    assert (await failure((await serve()).unknown(b""))).code() is StatusCode.UNIMPLEMENTED


async def test_deadline_ends_the_call_and_cancels_the_handler(serve: Serve):
    hanging = Hanging()
    error = await failure((await serve(unary=coroutine(hanging))).unary(b"", timeout=0.1))
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(hanging.cancelled.wait(), 5)


async def test_handler_sees_the_time_that_remains(serve: Serve):
    async def handle(request, context):
        return str(context.time_remaining()).encode()

    echo = await serve(unary=handle)
    assert 4 < float(await echo.unary(b"", timeout=5)) <= 5.01


async def test_cancelling_the_call_cancels_the_handler(serve: Serve):
    hanging = Hanging()
    call = (await serve(unary=coroutine(hanging))).unary(b"")
    waiting = asyncio.ensure_future(_await(call))
    await asyncio.wait_for(hanging.started.wait(), 5)
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(hanging.cancelled.wait(), 5)
    assert call.cancelled()
    assert await call.code() is StatusCode.CANCELLED
    assert not call.cancel()


async def test_cancelling_the_caller_cancels_the_handler(serve: Serve):
    hanging = Hanging()
    echo = await serve(unary=coroutine(hanging))
    caller = asyncio.create_task(_await(echo.unary(b"")))
    await asyncio.wait_for(hanging.started.wait(), 5)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await asyncio.wait_for(hanging.cancelled.wait(), 5)


async def _await(call):
    return await call


async def test_handler_that_will_not_stop_does_not_hold_up_the_caller(serve: Serve):
    release = asyncio.Event()

    async def stubborn(request, context):
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return b""

    error = await asyncio.wait_for(failure((await serve(unary=stubborn)).unary(b"", timeout=0.1)), 5)
    assert error.code() is StatusCode.DEADLINE_EXCEEDED
    release.set()


async def test_done_callbacks_are_called_on_both_sides(serve: Serve):
    ended = asyncio.Queue()

    async def handle(request, context):
        context.add_done_callback(lambda _: ended.put_nowait("servicer"))
        return b""

    call = (await serve(unary=handle)).unary(b"")
    call.add_done_callback(lambda _: ended.put_nowait("caller"))
    await call
    assert {await asyncio.wait_for(ended.get(), 5), await asyncio.wait_for(ended.get(), 5)} == {"caller", "servicer"}
    assert call.done()


async def test_context_variables_stay_on_their_side(serve: Serve):
    variable = contextvars.ContextVar("variable", default="unset")

    async def handle(request, context):
        seen = variable.get()
        variable.set("servicer's")
        return seen.encode()

    echo = await serve(unary=handle)
    variable.set("caller's")
    assert await echo.unary(b"") == b"unset"
    assert variable.get() == "caller's"


async def test_interceptors_wrap_handlers_outermost_first(serve: Serve):
    order = []

    def interceptor(name):
        class Noting(grpc.aio.ServerInterceptor):
            async def intercept_service(self, continuation, details):
                order.append((name, details.method))
                return await continuation(details)

        return Noting()

    async def handle(request, context):
        return b""

    echo = await serve(unary=handle, interceptors=[interceptor("outer"), interceptor("inner")])
    await echo.unary(b"")
    assert [name for name, _ in order] == ["outer", "inner"]
    assert order[0][1].endswith("/Unary")


async def generated(request, context):
    for number in range(3):
        yield bytes([number])


async def written(request, context):
    for number in range(3):
        await context.write(bytes([number]))


@pytest.mark.parametrize("handler", [generated, written])
async def test_stream_is_read_to_its_end(serve: Serve, handler):
    call = (await serve(stream=handler)).stream(b"")
    assert [message async for message in call] == [b"\0", b"\1", b"\2"]
    assert await call.code() is StatusCode.OK


@pytest.mark.parametrize("handler", [generated, written])
async def test_stream_is_read_piece_by_piece(serve: Serve, handler):
    call = (await serve(stream=handler)).stream(b"")
    assert [await call.read() for _ in range(3)] == [b"\0", b"\1", b"\2"]
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF


async def test_stream_that_fails_midway_is_no_clean_end(serve: Serve):
    async def handle(request, context):
        yield b"first"
        await context.abort(StatusCode.DATA_LOSS, "cut")

    call = (await serve(stream=handle)).stream(b"")
    assert await call.read() == b"first"
    assert (await failure(call.read())).code() is StatusCode.DATA_LOSS


async def test_deadline_of_a_stream(serve: Serve):
    hanging = Hanging()

    async def handle(request, context):
        yield b"first"
        await hanging(request, context)

    call = (await serve(stream=handle)).stream(b"", timeout=0.2)
    assert await call.read() == b"first"
    assert (await failure(call.read())).code() is StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(hanging.cancelled.wait(), 5)


async def test_reader_that_leaves_cancels_the_stream(serve: Serve):
    hanging = Hanging()

    async def handle(request, context):
        yield b"first"
        await hanging(request, context)

    call = (await serve(stream=handle)).stream(b"")
    assert await call.read() == b"first"
    reader = asyncio.create_task(_await(call.read()))
    await asyncio.wait_for(hanging.started.wait(), 5)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await asyncio.wait_for(hanging.cancelled.wait(), 5)


async def test_a_stream_cancelled_twice_stays_cancelled_by_its_reader(serve: Serve):
    hanging = Hanging()

    async def handle(request, context):
        yield b"first"
        await hanging(request, context)

    call = (await serve(stream=handle)).stream(b"")
    assert await call.read() == b"first"
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.read()
    await asyncio.wait_for(hanging.cancelled.wait(), 5)


async def test_stop_lets_calls_in_flight_end_and_refuses_new_ones(serve: Serve):
    started, release = asyncio.Event(), asyncio.Event()

    async def handle(request, context):
        started.set()
        await release.wait()
        return b"done"

    echo = await serve(unary=handle)
    flying = asyncio.create_task(_await(echo.unary(b"")))
    await asyncio.wait_for(started.wait(), 5)
    stopping = asyncio.create_task(echo.stop(5))
    async with asyncio.timeout(5):
        while (await failure(echo.unary(b"", timeout=0.2))).code() is not StatusCode.UNAVAILABLE:
            pass
    release.set()
    assert await flying == b"done"
    await asyncio.wait_for(stopping, 5)


async def test_a_stream_is_refused_once_the_server_stops():
    """In this process: over TCP the channel says so."""
    server = LocalServer()
    server.add_registered_method_handlers("s", {"M": grpc.unary_stream_rpc_method_handler(generated)})
    await server.stop(0)
    error = await asyncio.wait_for(failure(server.channel().unary_stream("/s/M")(b"").read()), 5)
    assert error.code() is StatusCode.UNAVAILABLE


async def test_stop_cancels_what_outlives_the_grace(serve: Serve):
    hanging = Hanging()
    echo = await serve(unary=coroutine(hanging))
    flying = asyncio.create_task(failure(echo.unary(b"")))
    await asyncio.wait_for(hanging.started.wait(), 5)
    await echo.stop(0.05)
    assert (await asyncio.wait_for(flying, 5)).code() in (StatusCode.UNAVAILABLE, StatusCode.CANCELLED)
    await asyncio.wait_for(hanging.cancelled.wait(), 5)


# What only the in-process channel promises.


@pytest.mark.parametrize("interceptors", [[], [CallGuard()]], ids=["generated", "guarded"])
async def test_servicer_is_no_more_than_a_message_ahead_of_the_reader(interceptors):
    produced = 0

    async def handle(request, context):
        nonlocal produced
        for _ in range(10):
            produced += 1
            yield b""

    server = LocalServer(interceptors)
    server.add_registered_method_handlers("s", {"M": grpc.unary_stream_rpc_method_handler(handle)})
    call = server.channel().unary_stream("/s/M")(b"")
    for read in range(1, 4):
        await call.read()
        for _ in range(20):
            await asyncio.sleep(0)
        assert produced == read + 2  # one is ready, one is being sent
    call.cancel()


async def test_messages_are_handed_over_as_they_are():
    seen = []

    class Servicer(llm_pb2_grpc.LlmGatewayServiceServicer):
        async def Generate(self, request, context):
            seen.append(request)
            return llm_pb2.GenerateResponse(text="x")

    server = LocalServer()
    llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(Servicer(), server)
    request = llm_pb2.GenerateRequest(persona="Lua")
    await llm_pb2_grpc.LlmGatewayServiceStub(server.channel()).Generate(request)
    assert seen[0] is request


async def test_client_streams_are_refused_by_name():
    with pytest.raises(grpc.aio.UsageError, match="/s/Upload"):
        LocalServer().channel().stream_unary("/s/Upload")


async def test_channel_is_always_ready():
    async with LocalServer().channel() as channel:
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        await channel.channel_ready()
