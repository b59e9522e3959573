"""Settings of who may call, and how often."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from chassis.database import DatabaseSettings
from chassis.transport import TransportSettings


class AccessSettings(TransportSettings, DatabaseSettings):
    """Settings of every process that lets callers in."""

    auth: Literal["off", "api-key", "jwt"] = Field(
        "off", validation_alias="ION_AUTH", description="what callers must show: off (nothing), api-key or jwt"
    )
    redis_url: SecretStr | None = Field(
        None,
        validation_alias="REDIS_URL",
        description="redis://, rediss:// or redis+cluster://host:port[,host:port]; unset: nothing is shared",
    )

    @field_validator("redis_url")
    @classmethod
    def _known_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        schemes = ("redis://", "rediss://", "redis+cluster://")
        if value is not None and not value.get_secret_value().startswith(schemes):
            raise ValueError(f"must start with {', '.join(schemes)}")
        return value
