"""Outgoing gRPC: channels, and the one way to call over them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message

from chassis import caller
from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded, from_rpc
from chassis.observability import tracing
from chassis.observability.rpc import MadeCall
from chassis.transport import PLAIN, Transport
from ion.error.v1.reason_pb2 import Reason

MAX_MESSAGE_BYTES = 4 << 20
# No shorter than the least interval that ION's servers accept (see server.py).
KEEPALIVE_MILLISECONDS = 30_000
# Larger messages are compressed with gzip, and take a fraction of the network; below it the work is not worth it.
COMPRESSED_BYTES = 16 << 10

# Only calls that reached no server are tried again here: a server that answers UNAVAILABLE itself pushes the retry back
# (see server.py), so that attempts at the model have one owner, the LLM gateway.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.5s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}


def open_channel(target: str, transport: Transport = PLAIN) -> grpc.aio.Channel:
    """A channel that spreads calls over all addresses of `target` and reconnects by itself."""
    options = [
        ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        # In fact the least time that a connection may take to be set up.
        ("grpc.min_reconnect_backoff_ms", 2_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    credentials = transport.channel_credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


async def invoke(
    method: Callable[..., Any],
    name: str,
    request: Message | bytes,
    deadline: Deadline,
    *,
    unreachable: Reason.ValueType,
    target: str = "",
    wait_for_ready: bool = False,
) -> Any:
    """One unary call within the deadline, its ids and trace context carried on. `name` is the full method name, such as
    ion.router.v1.PersonaRouterService/Chat, and `target` what the channel was opened for, as telemetry tells it.

    Raises IonError: a peer that nobody answers for is `unreachable`. Cancelling it cancels the call below.
    """
    remaining = _remaining_seconds(deadline)
    with MadeCall(name, target):
        call = method(
            request,
            timeout=remaining,
            metadata=tracing.outgoing_metadata() + caller.outgoing_metadata(),
            wait_for_ready=wait_for_ready,
            compression=compression_of(request),
        )
        try:
            return await call
        except asyncio.CancelledError:
            call.cancel()  # an abandoned call may never be cancelled by grpc itself
            raise
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, unreachable=unreachable) from error


async def invoke_stream(
    method: Callable[..., Any],
    name: str,
    request: Message | bytes,
    deadline: Deadline,
    *,
    unreachable: Reason.ValueType,
    target: str = "",
    wait_for_ready: bool = False,
) -> AsyncGenerator[Any, None]:
    """The messages of one server stream, all of them within the deadline; otherwise as `invoke`.

    Raises IonError, after any number of messages. Closing or cancelling it cancels the call below: whoever may stop
    before the end closes it (`contextlib.aclosing`).
    """
    remaining = _remaining_seconds(deadline)
    # Not the current call, as a generator shares its caller's context, which would see it between two messages.
    made = MadeCall(name, target)
    call: Any = None
    failure: BaseException | None = None
    try:
        call = method(
            request,
            timeout=remaining,
            metadata=tracing.outgoing_metadata(made.span.call) + caller.outgoing_metadata(),
            wait_for_ready=wait_for_ready,
            compression=compression_of(request),
        )
        async for message in call:
            made.note_message()
            yield message
    except grpc.aio.AioRpcError as error:
        failure = told = from_rpc(error, unreachable=unreachable)
        raise told from error
    except BaseException as error:
        failure = error
        raise
    finally:
        if call is not None:
            call.cancel()  # as above; nothing happens where the call has ended
        made.end_with(failure)


def compression_of(message: Message | bytes) -> grpc.Compression | None:
    """How the message travels; None for as it is."""
    size = len(message) if isinstance(message, bytes) else message.ByteSize()
    return grpc.Compression.Gzip if size > COMPRESSED_BYTES else None


def _remaining_seconds(deadline: Deadline) -> float:
    """More than none. Raises DeadlineExceeded."""
    remaining = deadline.remaining_seconds()
    if remaining <= 0:
        raise DeadlineExceeded
    return remaining
