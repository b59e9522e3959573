"""Connections to Vertex: a few a location, since Google's endpoints take 100 calls at a time over each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import grpc
import grpc.aio
from google.cloud.aiplatform_v1.services.prediction_service.transports.base import PredictionServiceTransport

from llm_gateway.backends.vertex_messages import (
    CountTokensRequest,
    CountTokensResponse,
    GenerateContentRequest,
    GenerateContentResponse,
)

CONNECTIONS_PER_LOCATION: Final = 4
# A new connection costs its first call a handshake, so calls share one until it is a quarter full.
CALLS_BEFORE_ANOTHER: Final = 25

MULTI_REGIONS: Final = ("us", "eu")
_SERVICES: Final = "/google.cloud.aiplatform.v1."
_CHANNEL_OPTIONS: Final = (
    # No limit, as in Google's own client.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # In fact the least time that a connection may take to be set up.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Attempts have one owner (ADR 3), and it is not gRPC, nor a service config found in DNS.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # Channels to one target would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)


class Connection:
    """A channel, the methods called over it, and how many calls are under way."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.calls = 0
        self.close = channel.close
        self.generate = channel.unary_unary(
            f"{_SERVICES}PredictionService/GenerateContent",
            request_serializer=GenerateContentRequest.SerializeToString,
            response_deserializer=GenerateContentResponse.FromString,
        )
        self.stream_generate = channel.unary_stream(
            f"{_SERVICES}PredictionService/StreamGenerateContent",
            request_serializer=GenerateContentRequest.SerializeToString,
            response_deserializer=GenerateContentResponse.FromString,
        )
        self.count_tokens = channel.unary_unary(
            f"{_SERVICES}LlmUtilityService/CountTokens",
            request_serializer=CountTokensRequest.SerializeToString,
            response_deserializer=CountTokensResponse.FromString,
        )


class ConnectionPool:
    """The connections to one location, opened as calls need them."""

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel], *, address: str = "") -> None:
        self._open_channel = open_channel
        self.address = address
        self._connections: list[Connection] = []

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """The connection for one call, which lasts as long as the block."""
        connection = self._choose()
        connection.calls += 1
        try:
            yield connection
        finally:
            connection.calls -= 1

    async def close(self) -> None:
        await asyncio.gather(*(connection.close() for connection in self._connections))

    def _choose(self) -> Connection:
        if self._connections:
            least_busy = min(self._connections, key=lambda connection: connection.calls)
            if least_busy.calls < CALLS_BEFORE_ANOTHER or len(self._connections) == CONNECTIONS_PER_LOCATION:
                return least_busy
        self._connections.append(Connection(self._open_channel()))
        return self._connections[-1]


def endpoint_of(location: str) -> str:
    """Google's endpoint for a region, for "us" and "eu", which are several, or for "global"."""
    host = PredictionServiceTransport.DEFAULT_HOST
    if location in MULTI_REGIONS:
        return host.replace(".", f".{location}.rep.", 1)
    return host if location == "global" else f"{location}-{host}"


def open_channel(target: str, *, insecure: bool) -> grpc.aio.Channel:
    if insecure:
        return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=_CHANNEL_OPTIONS)
