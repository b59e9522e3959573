"""A client of ION, sync and async, over gRPC or HTTP.

    with ion_client.connect("grpc://127.0.0.1:50051") as ion:
        reply = ion.chat("Why does this keep failing?")
        print(reply.persona, reply.text)

Importing this package costs next to nothing: gRPC or httpx is loaded when a client for it is made.
"""

from ion_client._async_client import AsyncClient
from ion_client._client import Client
from ion_client._connect import Tls, connect, connect_async
from ion_client._stream import AsyncReplyStream, ReplyStream
from ion_client.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    Interrupted,
    InvalidRequest,
    IonClientError,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
    Violation,
)
from ion_client.results import (
    Analysis,
    CacheControl,
    Choice,
    Contribution,
    Done,
    Event,
    Evidence,
    Failure,
    Generation,
    Intent,
    Persona,
    Reply,
    Rhythm,
    Routed,
    Routing,
    SessionInfo,
    Text,
    Timings,
    Tone,
    Turn,
    Usage,
)

__all__ = [
    "Analysis",
    "AsyncClient",
    "AsyncReplyStream",
    "CacheControl",
    "Cancelled",
    "Choice",
    "Client",
    "Contribution",
    "DeadlineExceeded",
    "Done",
    "Event",
    "Evidence",
    "Failure",
    "Generation",
    "Intent",
    "Internal",
    "Interrupted",
    "InvalidRequest",
    "IonClientError",
    "NotFound",
    "Persona",
    "RateLimited",
    "Reply",
    "ReplyStream",
    "Rhythm",
    "Routed",
    "Routing",
    "SessionInfo",
    "Text",
    "Timings",
    "Tls",
    "Tone",
    "Turn",
    "Unauthenticated",
    "Unavailable",
    "Usage",
    "Violation",
    "connect",
    "connect_async",
]
