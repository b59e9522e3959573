"""JSON Web Tokens of one issuer: who a token says that its bearer is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

import jwt

from chassis.access.jwks import ALGORITHMS, Source
from chassis.access.rates import is_tier
from chassis.caller import Caller

LEEWAY_SECONDS: Final = 30  # clocks of two machines
MAX_TOKEN_LENGTH: Final = 8192
_REQUIRED: Final = ("iss", "aud", "sub", "exp", "iat")


class JwtVerifier:
    """Tokens with the claims iss, aud, sub, exp and iat, signed with RS256 or ES256."""

    def __init__(self, source: Source, *, issuer: str, audience: str) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience

    async def verify(self, token: str) -> Caller | None:
        """The bearer; None where the token is not one that the issuer made for this audience and that holds now. Raises
        IonError where there are no keys to look at it with."""
        if len(token) > MAX_TOKEN_LENGTH:
            return None
        try:
            key = await self._key(jwt.get_unverified_header(token))
            return self._caller(self._claims(token, key)) if key else None
        except jwt.PyJWTError:
            return None

    async def close(self) -> None:
        await self._source.close()

    async def _key(self, header: Mapping[str, object]) -> jwt.PyJWK | None:
        kid, algorithm = header.get("kid"), header.get("alg")
        if algorithm not in ALGORITHMS.values() or not isinstance(kid, str | None):
            return None
        return await self._source.find(kid, str(algorithm))

    def _claims(self, token: str, key: jwt.PyJWK) -> dict[str, object]:
        """A PyJWK is bound to the algorithm of its type: a header that names another is refused."""
        claims: dict[str, object] = jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            audience=self._audience,
            leeway=LEEWAY_SECONDS,
            options={"require": list(_REQUIRED)},
        )
        return claims

    def _caller(self, claims: Mapping[str, object]) -> Caller | None:
        subject, tier = claims["sub"], claims.get("tier")
        if not subject:
            return None
        who = hashlib.sha256(json.dumps([self._issuer, subject]).encode()).hexdigest()
        return Caller(f"jwt:{who}", str(tier) if is_tier(tier) else "")
