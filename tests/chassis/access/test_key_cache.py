"""Keys that were looked up lately: how long they hold, and what is asked of the database."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from chassis.access import key_cache
from chassis.access.key_cache import KeyCache
from chassis.access.keys import ApiKey, KeyInfo, StoredKey
from chassis.errors import IonError
from ion.error.v1.reason_pb2 import Reason
from tests.stack.harness import until

KEY = ApiKey.new()
STORED = StoredKey(KeyInfo(KEY.id, "test", "", datetime.now(UTC)), KEY.secret_hash)


class Database:
    """Answers as told, when told; counts what it is asked."""

    def __init__(self) -> None:
        self.keys: dict[str, StoredKey] = {KEY.id: STORED}
        self.asked: list[str] = []
        self.seconds = 0.0
        self.is_away = False
        self.begun = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    def clock(self) -> float:
        return self.seconds

    async def look_up(self, key_id: str) -> StoredKey | None:
        self.asked.append(key_id)
        self.begun.set()
        found = self.keys.get(key_id)
        await self.answers.wait()
        if self.is_away:
            raise IonError(Reason.REASON_DATABASE_UNAVAILABLE)
        return found


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def cache(database: Database) -> KeyCache:
    return KeyCache(database.look_up, clock=database.clock)


async def test_a_known_key_is_asked_for_again_after_ten_seconds(cache, database):
    for seconds in (0.0, 9.9):
        database.seconds = seconds
        assert await cache.find(KEY.id) is STORED
    assert len(database.asked) == 1
    del database.keys[KEY.id]
    database.seconds = 10.0
    assert await cache.find(KEY.id) is None


async def test_the_ten_seconds_begin_with_the_question(cache, database):
    """A revocation while the answer is under way is not in it."""
    database.answers.clear()
    finding = asyncio.create_task(cache.find(KEY.id))
    await database.begun.wait()
    database.seconds = 8.0
    database.answers.set()
    await finding
    database.seconds = 10.0
    await cache.find(KEY.id)
    assert len(database.asked) == 2


async def test_unknown_ids_are_asked_for_once_in_five_seconds(cache, database):
    for seconds in (0.0, 4.9):
        database.seconds = seconds
        assert await cache.find("unknown") is None
    assert database.asked == ["unknown"]
    database.keys["unknown"] = STORED
    database.seconds = 5.0
    assert await cache.find("unknown") is STORED


async def test_known_keys_go_on_for_ten_minutes_without_the_database(cache, database):
    await cache.find(KEY.id)
    database.is_away = True
    database.seconds = 599.0
    assert await cache.find(KEY.id) is STORED
    database.seconds = 600.0
    with pytest.raises(IonError) as caught:
        await cache.find(KEY.id)
    assert caught.value.reason == Reason.REASON_DATABASE_UNAVAILABLE


async def test_unknown_keys_cannot_be_told_without_the_database(cache, database):
    assert await cache.find("unknown") is None
    database.is_away, database.seconds = True, 6.0
    with pytest.raises(IonError):
        await cache.find("unknown")


async def test_calls_at_the_same_time_ask_once_and_any_of_them_may_leave(cache, database):
    database.answers.clear()
    first, *others = [asyncio.create_task(cache.find(KEY.id)) for _ in range(5)]
    await database.begun.wait()
    first.cancel()
    await asyncio.wait([first])
    database.answers.set()
    assert await asyncio.gather(*others) == [STORED] * 4
    assert database.asked == [KEY.id]
    assert first.cancelled()


async def test_guesses_take_no_more_than_their_share_of_the_database(cache, database):
    await cache.find(KEY.id)
    database.seconds = 11.0
    database.answers.clear()
    guesses = [asyncio.create_task(cache.find(f"guess {number}")) for number in range(50)]
    known = asyncio.create_task(cache.find(KEY.id))
    await until(lambda: _has_asked(database, KEY.id, times=2))
    assert len(database.asked) == 2 + key_cache.STRANGERS
    database.answers.set()
    assert await known is STORED
    assert await asyncio.gather(*guesses) == [None] * 50


async def _has_asked(database: Database, key_id: str, *, times: int) -> bool:
    return database.asked.count(key_id) == times


async def test_too_many_guesses_at_once_are_refused(cache, database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_cache, "MAX_STRANGERS_WAITING", 10)
    database.answers.clear()
    guesses = [asyncio.create_task(cache.find(f"guess {number}")) for number in range(12)]
    refused, _ = await asyncio.wait(guesses, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert refused
    assert {task.exception().reason for task in refused} == {Reason.REASON_OVERLOADED}
    database.answers.set()
    answers = await asyncio.gather(*guesses, return_exceptions=True)
    assert answers.count(None) == 12 - len(refused)


async def test_the_cache_forgets_the_oldest_beyond_its_size(cache, database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_cache, "MAX_ENTRIES", 2)
    database.keys |= {"b": STORED, "c": STORED}
    for key_id in (KEY.id, "b", "c", "b", "c", KEY.id):
        await cache.find(key_id)
    assert database.asked == [KEY.id, "b", "c", KEY.id]


async def test_guesses_push_out_guesses_alone(cache, database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(key_cache, "MAX_ENTRIES", 2)
    for key_id in (KEY.id, "b", "c", "d", KEY.id, "b"):
        await cache.find(key_id)
    assert database.asked == [KEY.id, "b", "c", "d", "b"]


async def test_a_key_that_is_gone_is_unknown_and_one_that_comes_is_known(cache, database):
    assert await cache.find(KEY.id) is STORED
    del database.keys[KEY.id]
    database.seconds = 10.0
    assert await cache.find(KEY.id) is None
    database.is_away, database.seconds = True, 20.0
    with pytest.raises(IonError):
        await cache.find(KEY.id)
    database.is_away, database.keys[KEY.id] = False, STORED
    assert await cache.find(KEY.id) is STORED


async def test_closing_ends_what_is_under_way(cache, database):
    database.answers.clear()
    finding = asyncio.create_task(cache.find(KEY.id))
    await database.begun.wait()
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await finding
