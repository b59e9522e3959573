"""Settings from the environment. A bad value ends the start with one line that names the variable."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

T = TypeVar("T", bound="Settings")


@dataclass(frozen=True, slots=True)
class Bind:
    """Where to listen."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_bind(value: object) -> Bind:
    """`host:port`, with an IPv6 host in brackets. Raises ValueError saying what is allowed."""
    if isinstance(value, Bind):
        return value
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+):(\d{1,5})", str(value))
    if not match or int(match[2]) > 65535:
        raise ValueError("must be host:port with a port from 0 to 65535, such as 127.0.0.1:8080")
    return Bind(match[1].strip("[]"), int(match[2]))


def _split(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


BindSetting = Annotated[Bind, NoDecode, BeforeValidator(parse_bind)]
ListSetting = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Settings that every process has. Each field's alias is its environment variable."""

    model_config = SettingsConfigDict(
        extra="ignore", env_ignore_empty=True, populate_by_name=True, frozen=True, hide_input_in_errors=False
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias="ION_LOG_LEVEL", description="least severe log lines written to standard error"
    )
    log_format: Literal["json", "google"] | None = Field(
        None,
        validation_alias="ION_LOG_FORMAT",
        description="json, or google: with Google Cloud Logging's fields; unset: google on Cloud Run, else json",
    )
    log_batch_records: int = Field(
        50,
        ge=1,
        le=10_000,
        validation_alias="ION_LOG_BATCH_RECORDS",
        description="lines of requests that are written together; all other lines, and all at a terminal, do not wait",
    )
    log_batch_seconds: Seconds = Field(
        5.0, validation_alias="ION_LOG_BATCH_SECONDS", description="seconds that a log line waits for others at most"
    )
    log_queue_records: int = Field(
        10_000,
        ge=100,
        le=1_000_000,
        validation_alias="ION_LOG_QUEUE_RECORDS",
        description="log lines that may wait to be written; what comes beyond them is dropped, and counted",
    )
    access_log: bool = Field(
        True, validation_alias="ION_ACCESS_LOG", description="1: the HTTP gateway writes one log line a request"
    )
    metrics_bind: BindSetting | None = Field(
        None,
        validation_alias="ION_METRICS_BIND",
        description="host:port that serves /metrics to everybody, and nothing else; unset: none",
    )
    request_timeout_seconds: Seconds = Field(
        30.0,
        validation_alias="ION_REQUEST_TIMEOUT_SECONDS",
        description="seconds a request may take where the caller gives no deadline",
    )
    drain_seconds: float = Field(
        0.5,
        ge=0,
        le=600,
        validation_alias="ION_DRAIN_SECONDS",
        description="seconds between reporting NOT_SERVING and refusing calls at a stop; longer behind load balancers",
    )
    grace_seconds: float = Field(
        10.0,
        ge=0,
        le=600,
        validation_alias="ION_GRACE_SECONDS",
        description="seconds that calls in flight may take to end at a stop",
    )


def load(settings_type: type[T], **overrides: Any) -> T:
    """The settings, or exit status 2 with one line a bad variable on standard error."""
    try:
        return settings_type(**overrides)
    except ValidationError as error:
        stop(*describe(settings_type, error))


def stop(*lines: str) -> NoReturn:
    """End the process with exit status 2 and these lines on standard error."""
    sys.stderr.write("".join(f"ion: {line}\n" for line in lines))
    raise SystemExit(2)


def describe(settings_type: type[Settings], error: ValidationError) -> list[str]:
    """One line a bad value: variable, value, what is allowed."""
    return [_describe_one(settings_type, dict(item)) for item in error.errors(include_url=False)]


def _describe_one(settings_type: type[Settings], item: dict[str, Any]) -> str:
    allowed = str(item["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if not item["loc"]:
        return allowed  # about settings that do not go together: the text names them
    variable = str(item["loc"][0])
    return f"{variable}={_shown(settings_type, variable, item['input'])}: {_sentence(allowed)}"


def _sentence(allowed: str) -> str:
    return allowed if allowed.startswith("must") else f"must be {allowed}"


def _shown(settings_type: type[Settings], variable: str, value: object) -> str:
    secret = any(
        field.validation_alias == variable and "SecretStr" in str(field.annotation)
        for field in settings_type.model_fields.values()
    )
    return "(hidden)" if secret or isinstance(value, SecretStr) else repr(value)
