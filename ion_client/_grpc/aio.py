"""The async transport over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio

from ion.router.v1 import router_pb2_grpc
from ion_client._asks import Ask, StreamAsk
from ion_client._grpc.channel import OPTIONS, call_options, credentials
from ion_client._grpc.errors import from_rpc
from ion_client._grpc.messages import METHODS
from ion_client._retry import Envelope
from ion_client.errors import client_closed

if TYPE_CHECKING:
    from ion_client._connect import Tls

T = TypeVar("T")


class AsyncGrpcTransport:
    """See `AsyncTransport` in _async_client.py."""

    def __init__(self, address: str, tls: Tls | None) -> None:
        self._address = address
        self._credentials = credentials(tls) if tls else None
        self._channel: grpc.aio.Channel | None = None

    @cached_property
    def _stub(self) -> Any:
        """A channel belongs to the event loop that runs when it is made: that of the first call."""
        self._channel = (
            grpc.aio.secure_channel(self._address, self._credentials, options=OPTIONS)
            if self._credentials
            else grpc.aio.insecure_channel(self._address, options=OPTIONS)
        )
        return router_pb2_grpc.PersonaRouterServiceStub(self._channel)

    async def call(self, ask: Ask[T], envelope: Envelope) -> T:
        method = METHODS[type(ask)]
        call = getattr(self._stub, method.name)(method.request(ask), **call_options(envelope))
        with _translated(call):
            response = await call
        result: T = method.result(response)
        return result

    async def stream(self, ask: StreamAsk[T], envelope: Envelope) -> AsyncGenerator[T, None]:
        method = METHODS[type(ask)]
        call = getattr(self._stub, method.name)(method.request(ask), **call_options(envelope))
        with _translated(call):
            async for response in call:
                if (part := method.result(response)) is not None:
                    yield part

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()


@contextmanager
def _translated(call: Any) -> Iterator[None]:
    """Errors of the call as this client's; it is over when the block ends, however that ends."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise client_closed() from error  # the channel has cancelled the call
    finally:
        call.cancel()  # an abandoned call may never be cancelled by gRPC itself
