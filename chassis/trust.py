"""Which peers are services of ION, and may speak for the callers that they have admitted.

A service proves itself by the shared token, or by its certificate over mutual TLS: never by where it is.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

SERVICE_TOKEN_KEY: Final = "x-ion-service-token"  # noqa: S105 - a name
_PEER_NAMES: Final = ("x509_subject_alternative_name", "x509_common_name")

AuthContext = Mapping[str, Iterable[bytes]]


class Trust(Protocol):
    """Knows services."""

    def trusts(self, token: str, auth_context: Callable[[], AuthContext]) -> bool:
        """Whether the peer that showed this token ("" for none) over this connection is a service."""
        ...


class EverybodyIsTrusted:
    """For calls inside one process."""

    def trusts(self, token: str, auth_context: Callable[[], AuthContext]) -> bool:
        return True


class ProvenServices:
    """The token in constant time; or a certificate that TLS has verified and that carries one of the names."""

    def __init__(self, token: str = "", names: Iterable[str] = ()) -> None:
        self._token = token.encode()
        self._names = frozenset(names)

    def trusts(self, token: str, auth_context: Callable[[], AuthContext]) -> bool:
        if self._token and token and hmac.compare_digest(token.encode(), self._token):
            return True
        return bool(self._names) and not self._names.isdisjoint(_names(auth_context()))


def _names(auth_context: AuthContext) -> Iterable[str]:
    return (name.decode("utf-8", "replace") for key in _PEER_NAMES for name in auth_context.get(key, ()))
