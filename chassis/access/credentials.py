"""Who callers are, by what they show."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from chassis.access.key_cache import KeyCache
from chassis.access.keys import ApiKey, opens
from chassis.caller import NOBODY, Caller, Shown
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason

if TYPE_CHECKING:  # costs 150 ms of the start: imported where tokens are asked for
    from chassis.access.jwt_tokens import JwtVerifier

_BEARER: Final = "bearer"


class Credentials(Protocol):
    """Knows callers."""

    async def caller_of(self, shown: Shown) -> Caller:
        """Raises IonError: UNAUTHENTICATED, whatever was wrong; DATABASE_UNAVAILABLE where that cannot be told now."""
        ...

    async def close(self) -> None: ...


class NoCredentials:
    """Everybody is nobody in particular."""

    async def caller_of(self, shown: Shown) -> Caller:
        return NOBODY

    async def close(self) -> None:
        """Holds nothing."""


class KeyCredentials:
    """API keys, as bearer tokens or as `x-api-key`."""

    def __init__(self, cache: KeyCache) -> None:
        self._cache = cache

    async def caller_of(self, shown: Shown) -> Caller:
        key = ApiKey.parse(_bearer(shown.authorization) or shown.api_key)
        if key is None:
            raise IonError(Reason.REASON_UNAUTHENTICATED)
        stored = await self._cache.find(key.id)
        if not opens(key, stored, datetime.now(UTC)) or stored is None:
            raise IonError(Reason.REASON_UNAUTHENTICATED)
        return Caller(f"key:{key.id}", stored.info.tier)

    async def close(self) -> None:
        await self._cache.close()


class JwtCredentials:
    """JSON Web Tokens, as bearer tokens."""

    def __init__(self, verifier: JwtVerifier) -> None:
        self._verifier = verifier

    async def caller_of(self, shown: Shown) -> Caller:
        caller = await self._verifier.verify(_bearer(shown.authorization))
        if caller is None:
            raise IonError(Reason.REASON_UNAUTHENTICATED)
        return caller

    async def close(self) -> None:
        await self._verifier.close()


def _bearer(authorization: str) -> str:
    """The token of `Bearer <token>`, "" for any other scheme."""
    scheme, _, token = authorization.strip().partition(" ")
    return token.strip() if scheme.lower() == _BEARER else ""
