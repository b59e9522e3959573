"""What sync and async channels are opened with, and what goes with a call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import grpc

if TYPE_CHECKING:
    from ion_client._connect import Tls
    from ion_client._retry import Envelope

OPTIONS: Final = [
    # All addresses of a name share the calls. Retries are this client's own: gRPC itself only repeats what no service
    # has seen.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.primary_user_agent", "ion-client"),
    # No shorter than the least interval that ION's servers accept.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A retry is to find a connection that is there again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


def credentials(tls: Tls) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(_read(tls.ca_file), _read(tls.key_file), _read(tls.certificate_file))


def call_options(envelope: Envelope) -> dict[str, Any]:
    """A deadline that has passed fails before anything is sent."""
    return {
        "timeout": envelope.deadline.remaining_seconds(),
        "metadata": tuple(envelope.headers.items()),
    }


def _read(path: Path | str | None) -> bytes | None:
    return Path(path).read_bytes() if path else None
