"""Settings of the LLM gateway."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import NoDecode

from chassis.access.settings import AccessSettings
from chassis.settings import Bind, BindSetting, ListSetting, parse_bind

LOCATIONS = ("us-central1", "us-west1", "europe-west1")


def parse_endpoints(value: object) -> object:
    """`location=host:port,...` as a mapping. Raises ValueError saying what is allowed."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",") if part.strip()]
    if not all(location.strip() and equals for location, equals, _ in pairs):
        raise ValueError("must be location=host:port, more than one separated by commas")
    return {location.strip(): str(parse_bind(endpoint.strip())) for location, _, endpoint in pairs}


class LlmSettings(AccessSettings):
    llm_bind: BindSetting = Field(
        Bind("127.0.0.1", 50052), validation_alias="ION_LLM_BIND", description="host:port of the LLM gateway's gRPC"
    )
    backend: Literal["vertex", "offline"] | None = Field(
        None,
        validation_alias="ION_LLM_BACKEND",
        description="vertex or offline; unset: vertex where GOOGLE_CLOUD_PROJECT is set",
    )
    project: str | None = Field(
        None, validation_alias="GOOGLE_CLOUD_PROJECT", description="Google Cloud project that pays for Vertex AI"
    )
    model: str = Field(
        "gemini-3.5-flash", min_length=1, validation_alias="ION_VERTEX_MODEL", description="Vertex model id"
    )
    locations: Annotated[ListSetting, Field(min_length=1)] = Field(
        LOCATIONS, validation_alias="ION_VERTEX_LOCATIONS", description="Vertex locations, preferred ones first"
    )
    endpoints: Annotated[dict[str, str], NoDecode, BeforeValidator(parse_endpoints)] = Field(
        {},
        validation_alias="ION_VERTEX_ENDPOINTS",
        description="location=host:port,... in place of Google's endpoints, for emulators and private endpoints",
    )
    insecure: bool = Field(
        False,
        validation_alias="ION_VERTEX_INSECURE",
        description="1: plain-text gRPC and no Google credentials, for emulators only",
    )
    cache_wait_seconds: float = Field(
        0.005,
        gt=0,
        le=1,
        validation_alias="ION_CACHE_WAIT_SECONDS",
        description="seconds a request waits for Redis before it goes on without; 2 or 3 round trips are enough",
    )
    cache_ttl_seconds: int = Field(
        1800, ge=1, le=30 * 86400, validation_alias="ION_CACHE_TTL_SECONDS", description="seconds a reply is kept"
    )
    cache_max_entries: int = Field(
        1000,
        ge=0,
        le=1_000_000,
        validation_alias="ION_CACHE_MAX_ENTRIES",
        description="replies kept in this process; 0: none",
    )

    cache_stale_seconds: int = Field(
        0,
        ge=0,
        le=30 * 86400,
        validation_alias="ION_CACHE_STALE_SECONDS",
        description="seconds that a reply older than ION_CACHE_TTL_SECONDS still answers while a new one is made",
    )
    hedge: Literal["off", "reply", "first-token"] = Field(
        "first-token",
        validation_alias="ION_HEDGE",
        description="when a second call goes to another location: off, reply (a late reply), first-token (that too)",
    )
    location_choice: Literal["preference", "latency"] = Field(
        "preference",
        validation_alias="ION_VERTEX_LOCATION_CHOICE",
        description="preference: the first healthy location; latency: the faster of two healthy ones",
    )
    max_concurrent_calls: int = Field(
        1000,
        ge=1,
        le=100_000,
        validation_alias="ION_MAX_CONCURRENT_CALLS",
        description="replies that may be in the making at a time; more wait",
    )
    max_queued_calls: int = Field(
        1000,
        ge=0,
        le=100_000,
        validation_alias="ION_MAX_QUEUED_CALLS",
        description="requests that may wait for their turn; more are refused",
    )
    max_input_tokens: int = Field(
        0,
        ge=0,
        validation_alias="ION_MAX_INPUT_TOKENS",
        description="input tokens a call may have: older turns are left out to fit; 0: the model's own limit",
    )
    max_tokens_per_request: int = Field(
        0,
        ge=0,
        validation_alias="ION_MAX_TOKENS_PER_REQUEST",
        description="input tokens of all attempts at a reply together; the first is made in any case; 0: no limit",
    )

    @model_validator(mode="after")
    def _complete(self) -> LlmSettings:
        if self.backend_name == "vertex" and not self.insecure and not self.project:
            raise ValueError("GOOGLE_CLOUD_PROJECT is not set: must be a project id where ION_LLM_BACKEND=vertex")
        if self.backend_name == "vertex" and self.insecure and not self.endpoints:
            raise ValueError("ION_VERTEX_ENDPOINTS is not set: must be location=host:port where ION_VERTEX_INSECURE=1")
        return self

    @property
    def backend_name(self) -> Literal["vertex", "offline"]:
        return self.backend or ("vertex" if self.project else "offline")

    @property
    def usable_locations(self) -> tuple[str, ...]:
        """Without encryption only the overridden endpoints: nothing goes to Google in plain text."""
        if not self.insecure:
            return self.locations
        return tuple(location for location in self.locations if location in self.endpoints) or tuple(self.endpoints)
