"""API keys in both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from chassis.access.key_store import HISTORY, KeyStore
from chassis.access.keys import ApiKey, opens
from chassis.database import Database, DatabaseSettings, NoDatabase, open_database
from chassis.errors import InvalidField, IonError
from ion.error.v1.reason_pb2 import Reason


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        settings = DatabaseSettings(state_dir=tmp_path)
    else:
        settings = DatabaseSettings(database_url=request.getfixturevalue("postgres_server").new_database())
    async with open_database(settings, [HISTORY]) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> KeyStore:
    return KeyStore(database, timeout_seconds=30)


async def test_a_new_key_is_found_and_opens(store: KeyStore):
    info, text = await store.create("a robot", "pro", timedelta(days=90))
    key = ApiKey.parse(text)
    stored = await store.find(key.id)
    assert stored.info == info
    assert (info.id, info.name, info.tier, info.revoked_at) == (key.id, "a robot", "pro", None)
    assert info.expires_at - info.created_at == timedelta(days=90)
    assert opens(key, stored, info.created_at)


async def test_a_key_without_an_end(store: KeyStore):
    info, _ = await store.create("a robot")
    assert (await store.find(info.id)).info.expires_at is None


async def test_an_id_that_is_not_there(store: KeyStore):
    assert await store.find("x" * 12) is None
    assert not await store.revoke("x" * 12)


async def test_all_keys_newest_first(store: KeyStore):
    made = [(await store.create(name))[0] for name in ("one", "두 번째", "three")]
    assert await store.list() == made[::-1]


async def test_a_revoked_key_opens_nothing_and_the_others_still_do(store: KeyStore):
    info, text = await store.create("gone")
    other, other_text = await store.create("here")
    assert await store.revoke(info.id)
    revoked_at = (await store.find(info.id)).info.revoked_at
    assert not opens(ApiKey.parse(text), await store.find(info.id), revoked_at)
    assert opens(ApiKey.parse(other_text), await store.find(other.id), revoked_at)
    assert await store.revoke(info.id)
    assert (await store.find(info.id)).info.revoked_at == revoked_at


async def test_the_secret_is_not_kept(store: KeyStore, tmp_path: Path):
    _, text = await store.create("a robot")
    secret = ApiKey.parse(text).secret.encode()
    assert not any(secret in data for data in _files(tmp_path))


def _files(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("",), "name"),
        (("x" * 101,), "name"),
        (("line\nbreak",), "name"),
        (("a", "Pro"), "tier"),
        (("a", "x;y"), "tier"),
        (("a", "", timedelta()), "expires_in"),
    ],
)
async def test_what_a_key_cannot_be_called(values, field):
    with pytest.raises(InvalidField) as caught:
        await KeyStore(NoDatabase()).create(*values)
    assert caught.value.violations[0].field == field


async def test_without_a_database_nothing_can_be_told():
    with pytest.raises(IonError) as caught:
        await KeyStore(NoDatabase()).find("x" * 12)
    assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE
