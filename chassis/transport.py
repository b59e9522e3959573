"""How services reach each other: in plain text or over mutual TLS, and what each shows to be believed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc
from pydantic import Field, SecretStr, model_validator

from chassis.settings import ListSetting, Settings
from chassis.trust import SERVICE_TOKEN_KEY, ProvenServices


class TransportSettings(Settings):
    """Settings of every process that speaks gRPC with another."""

    service_token: SecretStr | None = Field(
        None,
        min_length=16,
        validation_alias="ION_SERVICE_TOKEN",
        description="secret that services show each other, at least 16 characters; the same for all of them",
    )
    tls_certificate: Path | None = Field(
        None, validation_alias="ION_TLS_CERT", description="PEM file of this service's certificate, for mutual TLS"
    )
    tls_key: Path | None = Field(None, validation_alias="ION_TLS_KEY", description="PEM file of its private key")
    tls_ca: Path | None = Field(
        None, validation_alias="ION_TLS_CA", description="PEM file of the authorities that sign all peers' certificates"
    )
    tls_services: ListSetting = Field(
        (),
        validation_alias="ION_TLS_SERVICES",
        description="names in certificates (subject alternative or common) that are services and may speak for callers",
    )

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        if len({bool(path) for path in (self.tls_certificate, self.tls_key, self.tls_ca)}) > 1:
            raise ValueError("ION_TLS_CERT, ION_TLS_KEY and ION_TLS_CA must be set together or not at all")
        for name, path in (
            ("ION_TLS_CERT", self.tls_certificate),
            ("ION_TLS_KEY", self.tls_key),
            ("ION_TLS_CA", self.tls_ca),
        ):
            if path and not path.is_file():
                raise ValueError(f"{name}={str(path)!r}: must be a file that can be read")
        if self.tls_certificate and self.tls_key and self.tls_ca:
            _check_files(self.tls_certificate, self.tls_key, self.tls_ca)
        return self

    @property
    def proves_services(self) -> bool:
        """Whether a service can show that it is one."""
        return bool(self.service_token or (self.tls_ca and self.tls_services))


def _check_files(certificate: Path, key: Path, authorities: Path) -> None:
    """Raises ValueError: gRPC itself would take files of no use, and fail with each connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password="")  # where one is needed there is nobody to ask
    except (OSError, ValueError):
        raise ValueError(
            f"ION_TLS_CERT={str(certificate)!r}, ION_TLS_KEY={str(key)!r}: must be a certificate and its key, as PEM"
        ) from None
    try:
        context.load_verify_locations(authorities)
    except (OSError, ValueError):
        raise ValueError(f"ION_TLS_CA={str(authorities)!r}: must be certificates, as PEM") from None


@dataclass(frozen=True, slots=True)
class Transport:
    """What a process shows and demands. Everything empty: plain text, and no peer is more than a caller."""

    token: str = field(default="", repr=False)
    tls: tuple[bytes, bytes, bytes] | None = field(default=None, repr=False)  # key, certificate, authorities
    services: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: TransportSettings) -> Transport:
        tls = None
        if settings.tls_key and settings.tls_certificate and settings.tls_ca:
            paths = (settings.tls_key, settings.tls_certificate, settings.tls_ca)
            key, certificate, authorities = (path.read_bytes() for path in paths)
            tls = (key, certificate, authorities)
        token = settings.service_token.get_secret_value() if settings.service_token else ""
        return cls(token, tls, settings.tls_services)

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        """The metadata that shows other services that this process is one."""
        return ((SERVICE_TOKEN_KEY, self.token),) if self.token else ()

    @property
    def trust(self) -> ProvenServices:
        return ProvenServices(self.token, self.services)

    def server_credentials(self) -> grpc.ServerCredentials | None:
        if self.tls is None:
            return None
        key, certificate, authorities = self.tls
        return grpc.ssl_server_credentials([(key, certificate)], authorities, require_client_auth=True)

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        if self.tls is None:
            return None
        key, certificate, authorities = self.tls
        return grpc.ssl_channel_credentials(authorities, key, certificate)


PLAIN = Transport()
