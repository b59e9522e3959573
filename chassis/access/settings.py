"""Settings of who may call, and how often."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from chassis.access.rates import OFF, RateSetting, TierRatesSetting
from chassis.database import DatabaseSettings
from chassis.settings import stop
from chassis.transport import TransportSettings

DEFAULT_RATE = "30/minute"


class AccessSettings(TransportSettings, DatabaseSettings):
    """Settings of every process that lets callers in."""

    auth: Literal["off", "api-key", "jwt"] = Field(
        "off", validation_alias="ION_AUTH", description="what callers must show: off (nothing), api-key or jwt"
    )
    jwt_issuer: str = Field(
        "", validation_alias="ION_JWT_ISSUER", description="who signs tokens: their claim iss, for ION_AUTH=jwt"
    )
    jwt_audience: str = Field(
        "", validation_alias="ION_JWT_AUDIENCE", description="whom tokens are for: their claim aud, for ION_AUTH=jwt"
    )
    jwt_jwks: str = Field(
        "",
        validation_alias="ION_JWT_JWKS",
        description="the issuer's public keys (a JSON Web Key Set): a file, or a URL with https (http for loopback)",
    )
    rate_limit: RateSetting | None = Field(
        None,
        validation_alias="ION_RATE_LIMIT",
        description="requests each caller may make, such as 30/minute or 5/second;100/minute, or off; "
        f"unset: {DEFAULT_RATE} where ION_AUTH is on, else off",
    )
    rate_limit_tiers: TierRatesSetting = Field(
        {},
        validation_alias="ION_RATE_LIMIT_TIERS",
        description="the same for callers of some tiers: pro=300/minute,internal=off",
    )
    token_limit: RateSetting = Field(
        OFF,
        validation_alias="ION_TOKEN_LIMIT",
        description="tokens of the model each caller may use, such as 100000/minute, or off",
    )
    token_limit_tiers: TierRatesSetting = Field(
        {}, validation_alias="ION_TOKEN_LIMIT_TIERS", description="the same for callers of some tiers"
    )
    rate_limit_wait_seconds: float = Field(
        0.05,
        gt=0,
        le=5,
        validation_alias="ION_RATE_LIMIT_WAIT_SECONDS",
        description="seconds a request waits for Redis to count it before this process alone does",
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

    @field_validator("jwt_jwks")
    @classmethod
    def _file_or_safe_url(cls, value: str) -> str:
        if value and not (_is_safe_url(value) if "://" in value else Path(value).is_file()):
            raise ValueError("a file that can be read, or a URL with https; with http only for loopback addresses")
        return value

    @model_validator(mode="after")
    def _jwt_is_whole(self) -> Self:
        if self.auth == "jwt" and not (self.jwt_issuer and self.jwt_audience and self.jwt_jwks):
            raise ValueError("ION_AUTH='jwt': must come with ION_JWT_ISSUER, ION_JWT_AUDIENCE and ION_JWT_JWKS")
        return self

    @property
    def requests(self) -> str:
        """The rate of requests that holds for callers without one of their tier."""
        return self.rate_limit or (OFF if self.auth == "off" else DEFAULT_RATE)

    @property
    def is_guarded(self) -> bool:
        """Whether not everybody may call as often as they like."""
        rates = (self.requests, self.token_limit, *self.rate_limit_tiers.values(), *self.token_limit_tiers.values())
        return self.auth != "off" or any(rate != OFF for rate in rates)


def require_proof(settings: AccessSettings) -> None:
    """End the start with one line where this process calls guarded services and could not prove to be one itself: each
    of its calls would be refused, or counted as its own."""
    if settings.is_guarded and not settings.proves_services:
        stop(
            "ION_SERVICE_TOKEN: must be set where ION_AUTH or a limit is, or ION_TLS_CERT, ION_TLS_KEY, ION_TLS_CA and "
            "ION_TLS_SERVICES in its place: services are to believe each other"
        )


def _is_safe_url(value: str) -> bool:
    parts = urlsplit(value)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(str(parts.hostname)))
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
