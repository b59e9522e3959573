"""The sync transport over gRPC."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, TypeVar

import grpc

from ion.router.v1 import router_pb2_grpc
from ion_client._asks import Ask, StreamAsk
from ion_client._grpc.channel import OPTIONS, call_options, credentials
from ion_client._grpc.errors import from_rpc
from ion_client._grpc.messages import METHODS
from ion_client._retry import Envelope

if TYPE_CHECKING:
    from ion_client._connect import Tls

T = TypeVar("T")


class GrpcTransport:
    """See `Transport` in _client.py."""

    def __init__(self, address: str, tls: Tls | None) -> None:
        self._channel = (
            grpc.secure_channel(address, credentials(tls), options=OPTIONS)
            if tls
            else grpc.insecure_channel(address, options=OPTIONS)
        )
        self._stub = router_pb2_grpc.PersonaRouterServiceStub(self._channel)

    def call(self, ask: Ask[T], envelope: Envelope) -> T:
        method = METHODS[type(ask)]
        try:
            response = getattr(self._stub, method.name)(method.request(ask), **call_options(envelope))
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        result: T = method.result(response)
        return result

    def stream(self, ask: StreamAsk[T], envelope: Envelope) -> Generator[T, None, None]:
        method = METHODS[type(ask)]
        call = getattr(self._stub, method.name)(method.request(ask), **call_options(envelope))
        try:
            for response in call:
                if (part := method.result(response)) is not None:
                    yield part
        except grpc.RpcError as error:
            raise from_rpc(error) from error
        finally:
            call.cancel()  # nothing happens where it has ended

    def close(self) -> None:
        self._channel.close()
