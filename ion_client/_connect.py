"""From a URL to a client."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, urlsplit

from ion_client._async_client import AsyncClient
from ion_client._client import Client
from ion_client._options import ApiKey, Options, key_or_environment

if TYPE_CHECKING:
    from ion_client._async_client import AsyncTransport
    from ion_client._client import Transport

_GRPC_PORTS: Final = {"grpc": 50051, "grpcs": 443}
_ALLOWED: Final = "grpc://HOST[:PORT], grpcs://HOST[:PORT], http://HOST[:PORT] or https://HOST[:PORT]"


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files for `grpcs` and `https`: the authorities to believe instead of the system's, and the certificate and
    key that this client shows where the service wants one."""

    ca_file: Path | str | None = None
    certificate_file: Path | str | None = None
    key_file: Path | str | None = None

    def __post_init__(self) -> None:
        if bool(self.certificate_file) != bool(self.key_file):
            raise ValueError("certificate_file and key_file must be given together")


@dataclass(frozen=True, slots=True)
class Target:
    """Where ION is, and what is spoken there. `address` is `host:port` for gRPC and the base URL for HTTP."""

    over_grpc: bool
    address: str
    tls: Tls | None


def connect(
    url: str,
    *,
    api_key: ApiKey | None = None,
    user_id: str = "",
    timeout_seconds: float = 30.0,
    max_retries: int = 2,
    tls: Tls | None = None,
) -> Client:
    """A client of the ION at `grpc://host:port`, `grpcs://host`, `http://host:port` or `https://host`. Nothing is sent
    yet.

    `api_key` is a key, or a JWT where the service takes those, or a function that gives the current one; else that of
    ION_API_KEY. `user_id` (whose sessions are meant) and `timeout_seconds` hold for calls that say nothing else. A call
    is retried `max_retries` times, where that makes sense; chats in a session only where the service has certainly not
    answered them. Raises ValueError for a URL, key or number that cannot be.
    """
    options = Options(key_or_environment(api_key), user_id, timeout_seconds, max_retries)
    return Client(_transport(target_of(url, tls)), options)


def connect_async(
    url: str,
    *,
    api_key: ApiKey | None = None,
    user_id: str = "",
    timeout_seconds: float = 30.0,
    max_retries: int = 2,
    tls: Tls | None = None,
) -> AsyncClient:
    """The same as `connect`, for asyncio."""
    options = Options(key_or_environment(api_key), user_id, timeout_seconds, max_retries)
    return AsyncClient(_async_transport(target_of(url, tls)), options)


def target_of(url: str, tls: Tls | None) -> Target:
    """Raises ValueError, which shows no credentials that may be in the URL."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("the URL must have no credentials in it: give an api_key")
    if not parts.hostname or parts.scheme not in (*_GRPC_PORTS, "http", "https") or parts.query or parts.fragment:
        raise ValueError(f"{url!r} is not {_ALLOWED}")
    encrypted = parts.scheme in ("grpcs", "https")
    if tls is not None and not encrypted:
        raise ValueError(f"tls is given, but {parts.scheme}:// is plain text")
    return Target(parts.scheme in _GRPC_PORTS, _address(parts, url), (tls or Tls()) if encrypted else None)


def _address(parts: SplitResult, url: str) -> str:
    if parts.scheme not in _GRPC_PORTS:
        return url.rstrip("/")
    if parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is not {_ALLOWED}")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or _GRPC_PORTS[parts.scheme]}"


# gRPC and httpx are imported where a client for them is made: nobody pays for the other one.


def _transport(target: Target) -> Transport:
    if target.over_grpc:
        from ion_client._grpc.sync import GrpcTransport

        return GrpcTransport(target.address, target.tls)
    from ion_client._http.sync import HttpTransport

    return HttpTransport(target.address, target.tls)


def _async_transport(target: Target) -> AsyncTransport:
    if target.over_grpc:
        from ion_client._grpc.aio import AsyncGrpcTransport

        return AsyncGrpcTransport(target.address, target.tls)
    from ion_client._http.aio import AsyncHttpTransport

    return AsyncHttpTransport(target.address, target.tls)
