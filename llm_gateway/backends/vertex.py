"""Gemini models on Vertex AI, over gRPC.

The generated client is not on the path of a call: making and reading its proto-plus objects costs 73 µs, plain
protobuf 10 µs (measured). Its message types, paths and metadata are used as they are. Importing this module takes
0.5 s (3 s where Python may not keep its bytecode) and about 100 MB.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, NoReturn, Self

import google.auth
import google.auth.transport.requests
import grpc
import grpc.aio
from google.api_core.gapic_v1 import routing_header
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud.aiplatform_v1.services.prediction_service.transports.base import (
    DEFAULT_CLIENT_INFO,
    PredictionServiceTransport,
)
from google.cloud.aiplatform_v1.types import content, prediction_service
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from chassis.deadline import Deadline
from chassis.errors import STATUS_DETAILS_KEY, DeadlineExceeded
from llm_gateway.generation import (
    FinishReason,
    GenerationRequest,
    ModelBlocked,
    ModelCredentials,
    ModelEmpty,
    ModelNotFound,
    ModelQuota,
    ModelRejected,
    ModelUnavailable,
    Parameters,
    Prompt,
    Reply,
    Turn,
    Usage,
)

_GENERATE: Final = "/google.cloud.aiplatform.v1.PredictionService/GenerateContent"
_COUNT_TOKENS: Final = "/google.cloud.aiplatform.v1.LlmUtilityService/CountTokens"

# The plain protobuf classes beneath the proto-plus ones.
_GenerateContentRequest: Final[Any] = prediction_service.GenerateContentRequest.pb()
_GenerateContentResponse: Final[Any] = prediction_service.GenerateContentResponse.pb()
_CountTokensRequest: Final[Any] = prediction_service.CountTokensRequest.pb()
_CountTokensResponse: Final[Any] = prediction_service.CountTokensResponse.pb()
_Content: Final[Any] = content.Content.pb()
_Part: Final[Any] = content.Part.pb()
_MINIMAL: Final = int(content.GenerationConfig.ThinkingConfig.ThinkingLevel.MINIMAL)

_CLIENT_METADATA: Final = DEFAULT_CLIENT_INFO.to_grpc_metadata()  # type: ignore[no-untyped-call]
_routing_metadata: Final[Any] = routing_header.to_grpc_metadata
_CREDENTIALS_SECONDS: Final = 20.0
_CHANNEL_OPTIONS: Final = (
    # No limit, as in Google's own client.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

Metadata = tuple[tuple[str, str], ...]


class Authorization:
    """The metadata that proves who calls: none without credentials.

    Google's gRPC plugin would do this too, but it starts a thread for each call (220 µs, measured) and turns an
    expired login and an unreachable token server into the same status.
    """

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self._transport = google.auth.transport.requests.Request()
        self._renewal: asyncio.Task[None] | None = None

    async def metadata(self, *, timeout_seconds: float) -> Metadata:
        """Waits only where there is no valid token; one that is about to expire is renewed in the background.
        Raises ModelCredentials where Google refuses, ModelUnavailable where it cannot be asked, DeadlineExceeded."""
        if self._credentials is None:
            return ()
        state = self._credentials.token_state
        if state is not TokenState.FRESH:
            renewal = self._renew(self._credentials)
            if state is TokenState.INVALID:
                await _wait_for_renewal(renewal, timeout_seconds)
        headers: dict[str, str] = {}
        self._credentials.apply(headers)  # type: ignore[no-untyped-call]
        return tuple(headers.items())

    def _renew(self, credentials: Credentials) -> asyncio.Task[None]:
        """The renewal under way, shared by all who need it: google-auth asks by blocking HTTP, so in a thread."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(asyncio.to_thread(credentials.refresh, self._transport))
            self._renewal.add_done_callback(lambda renewal: renewal.cancelled() or renewal.exception())
        return self._renewal


async def _wait_for_renewal(renewal: asyncio.Task[None], timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await asyncio.shield(renewal)
    except TimeoutError as error:
        raise DeadlineExceeded from error
    except TransportError as error:
        raise ModelUnavailable from error
    except GoogleAuthError as error:
        raise (ModelUnavailable if error.retryable else ModelCredentials)() from error


class VertexBackend:
    """See Backend. One channel a location; an attempt is one RPC, never repeated here."""

    def __init__(
        self, *, project: str, model: str, channels: Mapping[str, grpc.aio.Channel], authorization: Authorization
    ) -> None:
        self._project = project
        self._default_model = model
        self._channels = dict(channels)
        self._authorization = authorization
        self._generate = {location: _generate_callable(channel) for location, channel in channels.items()}
        self._count_tokens = {location: _count_tokens_callable(channel) for location, channel in channels.items()}

    @classmethod
    async def connect(
        cls,
        *,
        project: str,
        model: str,
        locations: Sequence[str],
        endpoints: Mapping[str, str] | None = None,
        insecure: bool = False,
    ) -> Self:
        """Channels to `endpoints[location]` ("host:port") or Google's own endpoint, which connect with the first call.
        `insecure`: plain text and no credentials. Otherwise Application Default Credentials are looked for;
        raises ValueError, one line saying what to set, where there are none."""
        credentials = None if insecure else await _find_credentials()
        open_channel = partial(_open_channel, insecure=insecure)
        targets = {location: (endpoints or {}).get(location) or endpoint_of(location) for location in locations}
        return cls(
            project=project,
            model=model,
            channels={location: open_channel(target) for location, target in targets.items()},
            authorization=Authorization(credentials),
        )

    @property
    def default_model(self) -> str:
        return self._default_model

    @property
    def locations(self) -> tuple[str, ...]:
        return tuple(self._channels)

    async def generate(self, request: GenerationRequest, *, location: str, timeout_seconds: float) -> Reply:
        resource = self._resource(location, request.model)
        message = generate_content_request(resource, request)
        response = await self._call(self._generate[location], message, ("model", resource), timeout_seconds)
        return read_reply(response, request.model, location)

    async def count_tokens(self, model: str, prompt: Prompt, *, location: str, timeout_seconds: float) -> int:
        resource = self._resource(location, model)
        message = _CountTokensRequest(endpoint=resource, model=resource, contents=_contents(prompt.turns))
        _set_system_instruction(message, prompt)
        response = await self._call(self._count_tokens[location], message, ("endpoint", resource), timeout_seconds)
        return int(response.total_tokens)

    async def close(self) -> None:
        await asyncio.gather(*(channel.close() for channel in self._channels.values()))

    def _resource(self, location: str, model: str) -> str:
        return f"projects/{self._project}/locations/{location}/publishers/google/models/{model}"

    async def _call(self, method: Any, message: Any, route: tuple[str, str], timeout_seconds: float) -> Any:
        deadline = Deadline.after(timeout_seconds)
        authorization = await self._authorization.metadata(timeout_seconds=timeout_seconds)
        metadata = (_routing_metadata((route,)), _CLIENT_METADATA, *authorization)
        call = method(message, timeout=deadline.remaining_seconds(), metadata=metadata)
        try:
            return await call
        except asyncio.CancelledError:
            # Not left to grpc: it cancels an awaited call by itself, but no longer one that is let go of.
            call.cancel()
            raise
        except grpc.aio.AioRpcError as error:
            _raise_for(error)


def endpoint_of(location: str) -> str:
    """Google's endpoint for a location; "global" has none of its own."""
    host = PredictionServiceTransport.DEFAULT_HOST
    return host if location == "global" else f"{location}-{host}"


def generate_content_request(resource: str, request: GenerationRequest) -> Any:
    """The request as raw protobuf."""
    message = _GenerateContentRequest(
        model=resource, contents=_contents(request.prompt.turns), labels=labels_of(request.persona)
    )
    _set_system_instruction(message, request.prompt)
    _set_parameters(message, request.parameters)
    if request.parameters.minimal_thinking:
        _set_minimal_thinking(message, request.model)
    return message


def labels_of(persona: str) -> dict[str, str]:
    """Labels for the bill, under Vertex's rules: at most 63 of lower-case letters, digits, `_` and `-`."""
    return {"persona": re.sub(r"[^a-z0-9_-]", "_", persona.lower())[:63]} if persona else {}


def read_reply(response: Any, model: str, location: str) -> Reply:
    """Raises ModelBlocked or ModelEmpty where the response holds no whole text."""
    if response.prompt_feedback.block_reason:
        raise ModelBlocked
    if not response.candidates:
        raise ModelEmpty
    candidate = response.candidates[0]
    finish_reason = _read_finish_reason(candidate.finish_reason)
    text = "".join(part.text for part in candidate.content.parts if not part.thought)
    if not text.strip():
        raise ModelEmpty
    return Reply(text, response.model_version or model, location, finish_reason, _read_usage(response.usage_metadata))


_FINISH_REASONS: Final = {
    # Servers other than Google's may leave it out.
    int(content.Candidate.FinishReason.FINISH_REASON_UNSPECIFIED): FinishReason.STOP,
    int(content.Candidate.FinishReason.STOP): FinishReason.STOP,
    int(content.Candidate.FinishReason.MAX_TOKENS): FinishReason.MAX_TOKENS,
}
# The model failed to produce an answer; a second try may do better.
_FAILED: Final = (
    int(content.Candidate.FinishReason.OTHER),
    int(content.Candidate.FinishReason.MALFORMED_FUNCTION_CALL),
)


def _read_finish_reason(number: int) -> FinishReason:
    if number in _FAILED:
        raise ModelEmpty
    if number not in _FINISH_REASONS:
        # Every other reason, and every one added so far, is a filter's.
        raise ModelBlocked
    return _FINISH_REASONS[number]


def _read_usage(usage: Any) -> Usage:
    return Usage(
        input_tokens=usage.prompt_token_count,
        output_tokens=usage.candidates_token_count,
        cached_input_tokens=usage.cached_content_token_count,
        thinking_tokens=usage.thoughts_token_count,
    )


def _contents(turns: Sequence[Turn]) -> list[Any]:
    return [_Content(role=turn.role.value, parts=[_Part(text=turn.text)]) for turn in turns]


def _set_system_instruction(message: Any, prompt: Prompt) -> None:
    if prompt.system_instruction:
        message.system_instruction.parts.add(text=prompt.system_instruction)


def _set_parameters(message: Any, parameters: Parameters) -> None:
    if parameters.temperature is not None:
        message.generation_config.temperature = parameters.temperature
    if parameters.top_p is not None:
        message.generation_config.top_p = parameters.top_p
    if parameters.max_output_tokens:
        message.generation_config.max_output_tokens = parameters.max_output_tokens
    if parameters.stop_sequences:
        message.generation_config.stop_sequences.extend(parameters.stop_sequences)
    if parameters.response_json_schema:
        message.generation_config.response_mime_type = "application/json"
        json_format.Parse(parameters.response_json_schema, message.generation_config.response_json_schema)


def _set_minimal_thinking(message: Any, model: str) -> None:
    """Gemini 3 and later have levels and refuse a budget beside them, 2.5 has budgets alone; models before these, and
    those of others, are not told."""
    if re.match(r"gemini-([3-9]|\d\d)", model):
        message.generation_config.thinking_config.thinking_level = _MINIMAL
    elif model.startswith("gemini-2.5-"):
        message.generation_config.thinking_config.thinking_budget = 0


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


async def _find_credentials() -> Credentials:
    find = partial(google.auth.default, scopes=PredictionServiceTransport.AUTH_SCOPES)
    try:
        # Reads files, and on Google's machines asks the metadata server.
        credentials, _ = await asyncio.wait_for(asyncio.to_thread(find), _CREDENTIALS_SECONDS)
    except (DefaultCredentialsError, TimeoutError) as error:
        raise ValueError(
            "no Google credentials for Vertex: set GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth "
            "application-default login`, or set ION_VERTEX_INSECURE=1 for an emulator"
        ) from error
    return credentials


def _open_channel(target: str, *, insecure: bool) -> grpc.aio.Channel:
    if insecure:
        return grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=_CHANNEL_OPTIONS)


def _generate_callable(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        _GENERATE,
        request_serializer=_GenerateContentRequest.SerializeToString,
        response_deserializer=_GenerateContentResponse.FromString,
    )


def _count_tokens_callable(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        _COUNT_TOKENS,
        request_serializer=_CountTokensRequest.SerializeToString,
        response_deserializer=_CountTokensResponse.FromString,
    )
