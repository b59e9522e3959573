"""Gemini models on Vertex AI, over gRPC.

The generated client is not on the path of a call: see `vertex_messages`. Its message types, paths and metadata are used
as they are. Importing this module takes 0.5 s (3 s where Python may not keep its bytecode) and about 100 MB.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, NoReturn, Self

import grpc
import grpc.aio
from google.api_core.gapic_v1 import routing_header
from google.cloud.aiplatform_v1.services.prediction_service.transports.base import DEFAULT_CLIENT_INFO
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from chassis.deadline import Deadline
from chassis.errors import STATUS_DETAILS_KEY, DeadlineExceeded
from chassis.observability import tracing
from llm_gateway.backends.google_auth import Authorization, Metadata, find_credentials
from llm_gateway.backends.vertex_channels import ConnectionPool, endpoint_of, open_channel
from llm_gateway.backends.vertex_messages import (
    ReplyReader,
    count_tokens_request,
    generate_content_request,
    read_reply,
)
from llm_gateway.catalogue import Catalogue
from llm_gateway.generation import (
    GenerationRequest,
    ModelCredentials,
    ModelNotFound,
    ModelQuota,
    ModelRejected,
    ModelUnavailable,
    Prompt,
    Reply,
)

_HTTPS_PORT: Final = 443
_CLIENT_METADATA: Final = DEFAULT_CLIENT_INFO.to_grpc_metadata()  # type: ignore[no-untyped-call]
_routing_metadata: Final[Any] = routing_header.to_grpc_metadata


class VertexBackend:
    """See Backend. One pool of connections a location; an attempt is one RPC, never repeated here."""

    provider = "gcp.vertex_ai"

    def __init__(
        self,
        *,
        project: str,
        model: str,
        pools: Mapping[str, ConnectionPool],
        authorization: Authorization,
        catalogue: Catalogue,
    ) -> None:
        self._project = project
        self._default_model = model
        self._pools = dict(pools)
        self._authorization = authorization
        self._catalogue = catalogue

    @classmethod
    async def connect(
        cls,
        *,
        project: str,
        model: str,
        locations: Sequence[str],
        endpoints: Mapping[str, str] | None = None,
        insecure: bool = False,
        catalogue: Catalogue | None = None,
    ) -> Self:
        """Channels to `endpoints[location]` ("host:port") or Google's own endpoint, which connect with the first call.
        `insecure`: plain text and no credentials. Otherwise Application Default Credentials are looked for;
        raises ValueError, one line saying what to set, where there are none. `catalogue`: the shipped one, unless
        given."""
        credentials = None if insecure else await find_credentials()
        targets = {location: (endpoints or {}).get(location) or endpoint_of(location) for location in locations}
        return cls(
            project=project,
            model=model,
            pools={
                location: ConnectionPool(partial(open_channel, target, insecure=insecure), address=target)
                for location, target in targets.items()
            },
            authorization=Authorization(credentials),
            catalogue=catalogue or Catalogue.load(),
        )

    @property
    def default_model(self) -> str:
        return self._default_model

    @property
    def locations(self) -> tuple[str, ...]:
        return tuple(self._pools)

    def address(self, location: str) -> str:
        address = self._pools[location].address
        return address if ":" in address else f"{address}:{_HTTPS_PORT}"

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        resource = self._resource(location, request.model)
        message = self._message(resource, request)
        with self._pools[location].lend() as connection:
            call = await self._start(connection.generate, message, ("model", resource), timeout_seconds)
            with _ended(call):
                response = await call
        return read_reply(response, request.model, location)

    async def stream(
        self, request: GenerationRequest, *, location: str, timeout_seconds: float
    ) -> AsyncGenerator[str | Reply, None]:
        resource = self._resource(location, request.model)
        message = self._message(resource, request)
        reader = ReplyReader(request.model, location)
        with self._pools[location].lend() as connection:
            call = await self._start(connection.stream_generate, message, ("model", resource), timeout_seconds)
            with _ended(call):
                # Not `async for`, which costs the same and leaves a generator of grpc's behind.
                while (response := await call.read()) is not grpc.aio.EOF:
                    if text := reader.read(response):
                        yield text
        yield reader.finish()

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        resource = self._resource(location, model)
        message = count_tokens_request(resource, prompt)
        with self._pools[location].lend() as connection:
            call = await self._start(connection.count_tokens, message, ("endpoint", resource), timeout_seconds)
            with _ended(call):
                return int((await call).total_tokens)

    async def close(self) -> None:
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))

    def _resource(self, location: str, model: str) -> str:
        return f"projects/{self._project}/locations/{location}/publishers/google/models/{model}"

    def _message(self, resource: str, request: GenerationRequest) -> Any:
        return generate_content_request(resource, request, least_thinking=self._catalogue.thinking_of(request.model))

    async def _start(self, method: Any, message: Any, route: tuple[str, str], timeout_seconds: float) -> Any:
        deadline = Deadline.after(timeout_seconds)
        authorization = await self._authorization.metadata(timeout_seconds=timeout_seconds)
        metadata = (_routing_metadata((route,)), _CLIENT_METADATA, *authorization, *_trace_metadata())
        return method(message, timeout=deadline.remaining_seconds(), metadata=metadata)


def _trace_metadata() -> Metadata:
    """Google is told of the call's own span alone, and only where it is sampled: no baggage, no tracestate."""
    traceparent = tracing.current_span().sampled_traceparent
    return ((tracing.TRACEPARENT_KEY, traceparent),) if traceparent else ()


@contextmanager
def _ended(call: Any) -> Iterator[None]:
    """However the block is left, so is the call: grpc cancels one that is awaited, but none that is let go of."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        _raise_for(error)
    finally:
        call.cancel()


_ERRORS: Final[dict[grpc.StatusCode, type[ModelNotFound | ModelRejected | ModelCredentials]]] = {
    grpc.StatusCode.NOT_FOUND: ModelNotFound,
    grpc.StatusCode.INVALID_ARGUMENT: ModelRejected,
    grpc.StatusCode.FAILED_PRECONDITION: ModelRejected,
    grpc.StatusCode.OUT_OF_RANGE: ModelRejected,
    grpc.StatusCode.UNIMPLEMENTED: ModelRejected,
    grpc.StatusCode.UNAUTHENTICATED: ModelCredentials,
    grpc.StatusCode.PERMISSION_DENIED: ModelCredentials,
}


def _raise_for(error: grpc.aio.AioRpcError) -> NoReturn:
    """The one translation of a status; a code not named here (UNAVAILABLE, INTERNAL, UNKNOWN, ABORTED, CANCELLED by the
    server) means that the service failed."""
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise DeadlineExceeded from error
    if error.code() in _ERRORS:
        raise _ERRORS[error.code()]() from error
    kind: type[ModelQuota | ModelUnavailable]
    kind = ModelQuota if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else ModelUnavailable
    raise kind(retry_after_seconds=_retry_after_seconds(error)) from error


def _retry_after_seconds(error: grpc.aio.AioRpcError) -> float | None:
    trailers = dict(error.trailing_metadata() or ())
    return _read_retry_info(trailers.get(STATUS_DETAILS_KEY, b"")) or _read_seconds(trailers.get("retry-after", ""))


def _read_retry_info(packed_status: bytes) -> float | None:
    retry = error_details_pb2.RetryInfo()
    try:
        for detail in status_pb2.Status.FromString(packed_status).details:
            if detail.Unpack(retry):
                return float(retry.retry_delay.ToMilliseconds() / 1000)
    except DecodeError:
        return None
    return None


def _read_seconds(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,6}(\.\d+)?", text) else None
