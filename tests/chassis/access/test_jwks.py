"""Public keys from files and URLs: which are used, and how they are kept up to date."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from chassis.access import jwks
from chassis.access.jwks import BadKeys, FileKeys, KeySet, UrlKeys
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from tests.issuer import KeyServer, SigningKey, key_server, key_set
from tests.stack.harness import until

FIRST, SECOND = SigningKey("first"), SigningKey("second")
RSA = SigningKey("rsa", "RS256")


class Clock:
    """Moved by hand."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def described(*keys: dict) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_keys_are_found_by_id_and_algorithm():
    keys = KeySet.parse(key_set(FIRST, SECOND, RSA))
    assert keys.find("second", "ES256").key_id == "second"
    assert keys.find("rsa", "RS256").key_id == "rsa"
    assert keys.find("rsa", "ES256") is None
    assert keys.find("third", "ES256") is None


def test_a_token_without_an_id_is_for_the_only_key_of_its_algorithm():
    keys = KeySet.parse(key_set(FIRST, SECOND, RSA))
    assert keys.find(None, "RS256").key_id == "rsa"
    assert keys.find(None, "ES256") is None


def _p384() -> dict:
    return ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP384R1()).public_key(), as_dict=True)


UNUSABLE = {
    "symmetric": {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"},
    "symmetric as RSA": {"kty": "oct", "k": "c2VjcmV0", "alg": "RS256"},
    "for encryption": RSA.public | {"use": "enc"},
    "of another algorithm": RSA.public | {"alg": "PS256"},
    "another curve": _p384(),
    "another curve as P-256": _p384() | {"crv": "P-256"},
    "too short": SigningKey("short", "RS256", bits=1024).public,
    "broken": {"kty": "RSA", "n": "!", "e": "AQAB"},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_keys_that_no_token_may_be_signed_with_are_left_out(name):
    keys = KeySet.parse(described(FIRST.public, UNUSABLE[name] | {"kid": "x"}))
    assert keys.find("x", "RS256") is None
    assert keys.find("x", "ES256") is None
    assert keys.find("first", "ES256")
    with pytest.raises(BadKeys):
        KeySet.parse(described(UNUSABLE[name]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": [{"kty": []}]}',
        b"\xff",
        b'{"keys": []}',
        b"[" * 100_000,
    ],
)
def test_what_is_no_key_set(data):
    with pytest.raises(BadKeys):
        KeySet.parse(data)


# Files.


def write(path: Path, data: bytes) -> None:
    """As deployments do: under another name, and then in its place."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.rename(path)


async def test_a_file_is_followed_and_a_bad_one_changes_nothing(tmp_path: Path, clock, caplog):
    caplog.set_level("INFO", logger=jwks.__name__)
    path = tmp_path / "jwks.json"
    write(path, key_set(FIRST))
    keys = FileKeys(path, clock=clock)
    assert await keys.find("first", "ES256")
    write(path, key_set(SECOND))
    clock.seconds += 1.0
    assert await keys.find("second", "ES256")
    assert await keys.find("first", "ES256") is None
    clock.seconds += 1.0
    assert await keys.find("second", "ES256")
    assert len([record for record in caplog.records if "have changed" in record.message]) == 1
    for data in (b"not json", None):
        write(path, data) if data else path.unlink()
        clock.seconds += 1.0
        assert await keys.find("second", "ES256")
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 2


async def test_a_file_is_not_looked_at_for_each_token(tmp_path: Path, clock):
    path = tmp_path / "jwks.json"
    write(path, key_set(FIRST))
    keys = FileKeys(path, clock=clock)
    write(path, key_set(SECOND))
    clock.seconds += 0.9
    assert await keys.find("first", "ES256")


def test_a_file_without_keys_is_none_to_begin_with(tmp_path: Path):
    path = tmp_path / "jwks.json"
    path.write_bytes(described())
    with pytest.raises(BadKeys):
        FileKeys(path)


# URLs.


@pytest.fixture
def server():
    with key_server(FIRST) as told:
        yield told


@pytest.fixture
async def keys(server: KeyServer, clock: Clock) -> AsyncIterator[UrlKeys]:
    source = UrlKeys(server.url, clock=clock)
    yield source
    await source.close()


async def test_the_first_token_waits_for_the_keys(keys, server):
    assert await keys.find("first", "ES256")
    assert server.requests == 1


async def test_a_fetch_that_goes_well_writes_no_line(keys, caplog):
    caplog.set_level("INFO")
    assert await keys.find("first", "ES256")
    assert caplog.records == []


async def test_all_tokens_of_one_moment_fetch_once(keys, server):
    assert all(await asyncio.gather(*(keys.find("first", "ES256") for _ in range(20))))
    assert server.requests == 1


async def test_a_new_key_is_fetched_when_it_is_first_seen_but_not_for_every_unknown_one(keys, server, clock):
    await keys.find("first", "ES256")
    server.body = key_set(FIRST, SECOND)
    clock.seconds += 9.9
    assert await keys.find("second", "ES256") is None
    assert server.requests == 1
    clock.seconds += 0.2
    assert await keys.find("second", "ES256")
    for _ in range(5):
        assert await keys.find("made up", "ES256") is None
    assert server.requests == 2


async def test_a_key_that_is_withdrawn_is_gone_with_the_next_look(server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jwks, "REFRESH_SECONDS", 0.02)
    source = UrlKeys(server.url)
    assert await source.find("first", "ES256")
    server.body = key_set(SECOND)

    async def is_gone() -> bool:
        return await source.find("first", "ES256") is None

    await until(is_gone)
    await source.close()


@pytest.mark.parametrize("fault", ["status", "body", "redirect", "large"])
async def test_the_old_keys_hold_while_the_url_is_of_no_use(keys, server, clock, caplog, fault):
    assert await keys.find("first", "ES256")
    if fault == "status":
        server.status = 500
    elif fault == "redirect":
        server.status, server.headers = 302, {"Location": server.url}
    server.body = {"body": b"<html>", "large": key_set(SECOND)[:-1] + b" " * jwks.MAX_BYTES + b"}"}.get(
        fault, server.body
    )
    for _ in range(2):
        clock.seconds += 10.0
        assert await keys.find("second", "ES256") is None
        assert await keys.find("first", "ES256")
    assert server.requests == 3
    assert len([record for record in caplog.records if "cannot be read" in record.message]) == 1


async def test_without_any_keys_nobody_can_tell(server, clock):
    server.status = 503
    source = UrlKeys(server.url, clock=clock)
    with pytest.raises(IonError) as caught:
        await source.find("first", "ES256")
    assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE
    server.status = 200
    clock.seconds += 10.0
    assert await source.find("first", "ES256")
    await source.close()


async def test_whoever_leaves_does_not_take_the_answer_along(keys, server):
    first, second = (asyncio.create_task(keys.find("first", "ES256")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second
    assert first.cancelled()
    assert server.requests == 1
