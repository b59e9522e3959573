"""The door that settings ask for: who comes in, and how often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from chassis import telemetry
from chassis.access.credentials import Credentials, KeyCredentials, NoCredentials
from chassis.access.key_cache import KeyCache
from chassis.access.key_store import HISTORY, KeyStore
from chassis.access.limiter import Counters, Limiter
from chassis.access.rates import Rates
from chassis.access.settings import AccessSettings
from chassis.caller import Admitted, Caller, Door, OpenDoor, Shown
from chassis.database import Database, History, NoDatabase, open_database
from chassis.errors import IonError
from chassis.observability import metrics
from chassis.settings import stop

_IPV6_NETWORK_BITS: Final = 64  # what one household or machine has


class GuardedDoor:
    """Looks who it is, then how often it came."""

    def __init__(self, credentials: Credentials, limiter: Limiter) -> None:
        self._credentials = credentials
        self._limiter = limiter

    async def admit(self, shown: Shown) -> Admitted:
        try:
            caller = await self._credentials.caller_of(shown)
            return Admitted(caller, await self._limiter.admit(_who(caller, shown), caller.tier))
        except IonError as error:
            metrics.count(telemetry.ACCESS_REFUSED, {telemetry.ERROR_TYPE: error.reason_name})
            raise

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None:
        self._limiter.charge(_who(admitted.caller, shown), admitted.caller.tier, tokens)

    async def close(self) -> None:
        await self._limiter.close()
        await self._credentials.close()


def _who(caller: Caller, shown: Shown) -> str:
    """Whom limits are for: the caller, or where nobody says who it is its network."""
    return caller.principal or f"network:{network_of(shown.address)}"


def network_of(address: str) -> str:
    """What of an address is one caller's: an IPv4 address as it is, the first half of an IPv6 one; anything else as it
    is."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), _IPV6_NETWORK_BITS), strict=False))


@asynccontextmanager
async def open_door(settings: AccessSettings, database: Database) -> AsyncIterator[Door]:
    """The door until the block ends. `database` holds the keys, for ION_AUTH=api-key. Ends the process with one line
    where a file or an address of the settings is of no use."""
    if not settings.is_guarded:
        yield OpenDoor()
        return
    requests = Rates(settings.requests, settings.rate_limit_tiers)
    tokens = Rates(settings.token_limit, settings.token_limit_tiers)
    door = GuardedDoor(_credentials(settings, database), Limiter(requests, tokens, await _counters(settings)))
    try:
        yield door
    finally:
        await door.close()


def _credentials(settings: AccessSettings, database: Database) -> Credentials:
    if settings.auth == "off":
        return NoCredentials()
    if settings.auth == "jwt":
        return _jwt_credentials(settings)
    store = KeyStore(database, timeout_seconds=settings.database_timeout_seconds)
    return KeyCredentials(KeyCache(store.find))


def _jwt_credentials(settings: AccessSettings) -> Credentials:
    # Imported where they are used: 150 ms.
    from chassis.access.credentials import JwtCredentials
    from chassis.access.jwks import BadKeys, FileKeys, UrlKeys
    from chassis.access.jwt_tokens import JwtVerifier

    try:
        is_url = "://" in settings.jwt_jwks
        source = UrlKeys(settings.jwt_jwks) if is_url else FileKeys(Path(settings.jwt_jwks))
    except (BadKeys, OSError) as error:
        stop(f"ION_JWT_JWKS={settings.jwt_jwks!r}: must be a JSON Web Key Set with a key for RS256 or ES256: {error}")
    return JwtCredentials(JwtVerifier(source, issuer=settings.jwt_issuer, audience=settings.jwt_audience))


async def _counters(settings: AccessSettings) -> Counters:
    # Imported where something is limited: 150 ms.
    from chassis.access.counters import LocalCounters, SharedCounters

    if settings.redis_url is None:
        return LocalCounters()
    try:
        return await SharedCounters.open(
            settings.redis_url.get_secret_value(), wait_seconds=settings.rate_limit_wait_seconds
        )
    except ValueError as error:
        stop(str(error))


@dataclass(frozen=True, slots=True)
class Entrance:
    """What a process needs to let callers in and to keep what is theirs: one door, and one database, NoDatabase where
    nothing is kept."""

    door: Door
    database: Database


@asynccontextmanager
async def open_entrance(settings: AccessSettings, *histories: History) -> AsyncIterator[Entrance]:
    """Until the block ends. `histories` are the tables that the process keeps something in, besides keys."""
    wanted = (*histories, HISTORY) if settings.auth == "api-key" else histories
    async with AsyncExitStack() as stack:
        database: Database = NoDatabase()
        if wanted:
            database = await stack.enter_async_context(open_database(settings, wanted))
        yield Entrance(await stack.enter_async_context(open_door(settings, database)), database)
