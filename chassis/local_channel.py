"""gRPC without sockets: generated stubs talk to generated servicers inside one process.

`LocalServer` takes what `add_XServicer_to_server` gives a server, and `LocalServer.channel()` is a `grpc.aio.Channel`
for it. Unary calls and server streams behave as over TCP: deadlines, cancellation, metadata, status and details,
interceptors. Messages are handed over as they are, without serialisation: neither side may change a message after it
has been sent. Client streams are not carried.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

import grpc
import grpc.aio

Metadatum = tuple[str, str | bytes]
_OK: Final = grpc.StatusCode.OK
_END: Final = object()


class LocalServer:
    """Holds servicers as `grpc.aio.Server` does, for calls from the same process."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor] = ()) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler] = {}
        self._interceptors = tuple(interceptors)
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting = True

    def add_registered_method_handlers(self, service_name: str, handlers: Mapping[str, Any]) -> None:
        self._handlers.update({f"/{service_name}/{method}": handler for method, handler in handlers.items()})

    def add_generic_rpc_handlers(self, handlers: Iterable[Any]) -> None:
        """Ignored: generated code registers each method by name as well, and those are the ones that serve."""

    def channel(self) -> LocalChannel:
        return LocalChannel(self)

    async def stop(self, grace_seconds: float) -> None:
        """Refuse new calls, give those in flight `grace_seconds` to end, then cancel them."""
        self._accepting = False
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def start(self, rpc: _Rpc, serve: Callable[[Any], Awaitable[None]]) -> None:
        """Run `serve(handler)` for the call as a task of its own: in a fresh context, as across a socket."""
        if not self._accepting:
            rpc.finish(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")
            return
        task = asyncio.get_running_loop().create_task(self._run(rpc, serve), context=contextvars.Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        rpc.task = task

    async def _run(self, rpc: _Rpc, serve: Callable[[Any], Awaitable[None]]) -> None:
        try:
            handler = await self._resolve(_CallDetails(rpc.method, rpc.metadata))
            if handler is None:
                rpc.finish(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
                return
            await serve(handler)
        except asyncio.CancelledError:
            rpc.finish(grpc.StatusCode.CANCELLED, "Cancelled.")
            raise
        except grpc.aio.AbortError:
            rpc.finish(rpc.code or grpc.StatusCode.UNKNOWN, rpc.details)
        except Exception as error:
            rpc.finish(grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}")

    async def _resolve(self, details: _CallDetails) -> Any:
        resolve: Callable[[Any], Awaitable[Any]] = self._lookup
        for interceptor in reversed(self._interceptors):
            resolve = partial(interceptor.intercept_service, resolve)
        return await resolve(details)

    async def _lookup(self, details: Any) -> Any:
        return self._handlers.get(details.method)


@dataclass(frozen=True, slots=True)
class _CallDetails:
    method: str
    invocation_metadata: tuple[Metadatum, ...]


class _Rpc:
    """One call, as both ends see it. The first `finish` decides its status."""

    def __init__(self, method: str, metadata: Iterable[Metadatum] | None, timeout_seconds: float | None) -> None:
        self.method = method
        self.metadata = tuple(metadata or ())
        self.task: asyncio.Task[None] | None = None
        self.code: grpc.StatusCode | None = None
        self.details = ""
        self.initial_metadata: tuple[Metadatum, ...] = ()
        self.trailing_metadata: tuple[Metadatum, ...] = ()
        self.done = False
        self.finished: asyncio.Future[grpc.StatusCode] = asyncio.get_running_loop().create_future()
        self.on_finish: list[Callable[[], None]] = []
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        self._timer = None if timeout_seconds is None else self._start_timer(timeout_seconds)

    def _start_timer(self, timeout_seconds: float) -> asyncio.TimerHandle:
        expire = (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
        return asyncio.get_running_loop().call_later(max(0.0, timeout_seconds), self.stop, *expire)

    def time_remaining(self) -> float | None:
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def finish(self, code: grpc.StatusCode, details: str = "") -> None:
        if self.done:
            return
        self.done, self.code, self.details = True, code, details
        if self._timer:
            self._timer.cancel()
        if not self.finished.done():
            self.finished.set_result(code)
        for callback in self.on_finish:
            callback()

    def stop(self, code: grpc.StatusCode, details: str) -> bool:
        """End the call from outside the handler, which is cancelled. False where it had ended."""
        if self.done:
            return False
        self.finish(code, details)
        if self.task:
            self.task.cancel()
        return True

    def error(self) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(
            self.code or grpc.StatusCode.UNKNOWN,
            grpc.aio.Metadata(*self.initial_metadata),
            grpc.aio.Metadata(*self.trailing_metadata),
            self.details,
        )


class _Context(grpc.aio.ServicerContext):  # type: ignore[misc]
    """The servicer's view of a call."""

    def __init__(self, rpc: _Rpc, write: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self._rpc = rpc
        self._write = write

    async def read(self) -> NoReturn:
        raise grpc.aio.UsageError("The request was given to the handler.")

    async def write(self, message: Any) -> None:
        if self._write is None:
            raise grpc.aio.UsageError("This method does not stream.")
        await self._write(message)

    async def send_initial_metadata(self, initial_metadata: Iterable[Metadatum]) -> None:
        self._rpc.initial_metadata = tuple(initial_metadata)

    async def abort(
        self, code: grpc.StatusCode, details: str = "", trailing_metadata: Iterable[Metadatum] = ()
    ) -> NoReturn:
        if code is _OK:
            raise grpc.aio.UsageError("A call cannot be aborted with OK.")
        self._rpc.code, self._rpc.details = code, details
        self._rpc.trailing_metadata = tuple(trailing_metadata) or self._rpc.trailing_metadata
        raise grpc.aio.AbortError("Locally aborted.")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    def set_trailing_metadata(self, trailing_metadata: Iterable[Metadatum]) -> None:
        self._rpc.trailing_metadata = tuple(trailing_metadata)

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        return self._rpc.metadata

    def set_code(self, code: grpc.StatusCode) -> None:
        self._rpc.code = code

    def set_details(self, details: str) -> None:
        self._rpc.details = details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is serialised, so nothing is compressed."""

    def disable_next_message_compression(self) -> None:
        """Nothing is serialised, so nothing is compressed."""

    def peer(self) -> str:
        return "inproc"

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {}

    def time_remaining(self) -> float | None:
        return self._rpc.time_remaining()

    def trailing_metadata(self) -> tuple[Metadatum, ...]:
        return self._rpc.trailing_metadata

    def code(self) -> grpc.StatusCode | None:
        return self._rpc.code

    def details(self) -> str:
        return self._rpc.details

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._rpc.on_finish.append(lambda: callback(self))

    def cancelled(self) -> bool:
        return self._rpc.done and self._rpc.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._rpc.done


class _Call(grpc.aio.Call):  # type: ignore[misc]
    """The caller's view of a call."""

    def __init__(self, rpc: _Rpc) -> None:
        self._rpc = rpc

    def cancelled(self) -> bool:
        return self._rpc.done and self._rpc.code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self._rpc.done

    def time_remaining(self) -> float | None:
        return self._rpc.time_remaining()

    def cancel(self) -> bool:
        stopped = self._rpc.stop(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        self._locally_cancelled |= stopped
        return stopped

    _locally_cancelled = False

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        if self._rpc.done:
            callback(self)
        else:
            self._rpc.on_finish.append(lambda: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        await self._finish()
        return grpc.aio.Metadata(*self._rpc.initial_metadata)

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        await self._finish()
        return grpc.aio.Metadata(*self._rpc.trailing_metadata)

    async def code(self) -> grpc.StatusCode:
        return await self._finish()

    async def details(self) -> str:
        await self._finish()
        return self._rpc.details

    async def wait_for_connection(self) -> None:
        """There is nothing to connect."""

    async def _finish(self) -> grpc.StatusCode:
        return await asyncio.shield(self._rpc.finished)

    def _raise(self) -> NoReturn:
        if self._locally_cancelled:
            raise asyncio.CancelledError
        raise self._rpc.error()


class _UnaryCall(_Call, grpc.aio.UnaryUnaryCall):  # type: ignore[misc]
    def __init__(self, rpc: _Rpc, server: LocalServer, request: Any) -> None:
        super().__init__(rpc)
        self._response: Any = None
        self._request = request
        server.start(rpc, self._serve)

    async def _serve(self, handler: Any) -> None:
        self._response = await handler.unary_unary(self._request, _Context(self._rpc))
        self._rpc.finish(self._rpc.code or _OK, self._rpc.details)

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            code = yield from self._rpc.finished.__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if code is not _OK:
            self._raise()
        return self._response


class _StreamCall(_Call, grpc.aio.UnaryStreamCall):  # type: ignore[misc]
    """A server stream. The servicer may be one message ahead of the reader, no more."""

    def __init__(self, rpc: _Rpc, server: LocalServer, request: Any) -> None:
        super().__init__(rpc)
        self._request = request
        self._messages: asyncio.Queue[Any] = asyncio.Queue()
        self._ahead = asyncio.Semaphore(1)
        rpc.on_finish.append(lambda: self._messages.put_nowait(_END))
        server.start(rpc, self._serve)

    async def _write(self, message: Any) -> None:
        await self._ahead.acquire()
        self._messages.put_nowait(message)

    async def _serve(self, handler: Any) -> None:
        produced = handler.unary_stream(self._request, _Context(self._rpc, self._write))
        if inspect.isawaitable(produced):
            await produced
        else:
            async for message in produced:
                await self._write(message)
        self._rpc.finish(self._rpc.code or _OK, self._rpc.details)

    async def read(self) -> Any:
        try:
            message = await self._messages.get()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if message is not _END:
            self._ahead.release()
            return message
        self._messages.put_nowait(_END)
        if self._rpc.code is not _OK:
            self._raise()
        return grpc.aio.EOF

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._iterate()

    async def _iterate(self) -> AsyncIterator[Any]:
        while (message := await self.read()) is not grpc.aio.EOF:
            yield message


class _Method:
    """What a stub holds for one method."""

    def __init__(self, call_type: type[_UnaryCall | _StreamCall], server: LocalServer, method: str) -> None:
        self._call_type = call_type
        self._server = server
        self._method = method

    def __call__(
        self, request: Any, *, timeout: float | None = None, metadata: Iterable[Metadatum] | None = None, **_: Any
    ) -> _UnaryCall | _StreamCall:
        """Start the call. Credentials, compression and wait_for_ready have nothing to act on here."""
        return self._call_type(_Rpc(self._method, metadata, timeout), self._server, request)


class LocalChannel(grpc.aio.Channel):  # type: ignore[misc]
    """A channel to a `LocalServer`; always ready."""

    def __init__(self, server: LocalServer) -> None:
        self._server = server

    def unary_unary(self, method: str, *_: Any, **__: Any) -> _Method:
        return _Method(_UnaryCall, self._server, method)

    def unary_stream(self, method: str, *_: Any, **__: Any) -> _Method:
        return _Method(_StreamCall, self._server, method)

    def stream_unary(self, method: str, *_: Any, **__: Any) -> NoReturn:
        raise grpc.aio.UsageError(f"{method}: client streams are not carried in process.")

    def stream_stream(self, method: str, *_: Any, **__: Any) -> NoReturn:
        raise grpc.aio.UsageError(f"{method}: client streams are not carried in process.")

    async def __aenter__(self) -> LocalChannel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Nothing to close; `LocalServer.stop` ends the calls."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        if last_observed_state is grpc.ChannelConnectivity.READY:
            await asyncio.get_running_loop().create_future()

    async def channel_ready(self) -> None:
        return
