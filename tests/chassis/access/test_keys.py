"""Keys: what they look like, and which of them open."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.access.keys import ApiKey, KeyInfo, StoredKey, opens

NOW = datetime(2026, 11, 25, tzinfo=UTC)
LETTERS = st.sampled_from("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
KEYS = st.builds(ApiKey, st.text(LETTERS, min_size=12, max_size=12), st.text(LETTERS, min_size=43, max_size=43))


def stored(key: ApiKey, **info) -> StoredKey:
    return StoredKey(KeyInfo(key.id, "test", "", NOW - timedelta(days=1), **info), key.secret_hash)


@given(KEYS)
def test_what_is_written_is_read(key):
    assert ApiKey.parse(key.text) == key


@given(st.text())
def test_no_text_breaks_the_parser(text):
    key = ApiKey.parse(text)
    assert key is None or key.text == text


@given(KEYS, st.integers(0, 59), st.characters())
def test_one_changed_character_is_no_key_or_another(key, at, character):
    changed = key.text[:at] + character + key.text[at + 1 :]
    parsed = ApiKey.parse(changed)
    assert parsed is None or parsed.text == changed
    assert (parsed == key) == (changed == key.text)


@pytest.mark.parametrize("around", ["{} ", " {}", "{}\n", "Bearer {}", "{}x"])
def test_nothing_stands_around_a_key(around):
    assert ApiKey.parse(around.format(ApiKey.new().text)) is None


def test_letters_of_other_alphabets_are_no_letters_of_a_key():
    key = ApiKey.new()
    assert ApiKey.parse(key.text[:-1] + "é") is None
    assert ApiKey.parse(key.text[:-1] + "٣") is None


def test_new_keys_are_all_different_and_well_formed():
    keys = [ApiKey.new() for _ in range(100)]
    assert all(ApiKey.parse(key.text) == key for key in keys)
    assert len({key.id for key in keys} | {key.secret for key in keys}) == 200


def test_a_key_does_not_show_its_secret():
    key = ApiKey.new()
    assert key.secret not in f"{key!r} {key} {stored(key)!r}"


def test_a_key_opens_what_was_stored_of_it_and_no_other():
    key, other = ApiKey.new(), ApiKey.new()
    assert opens(key, stored(key), NOW)
    assert not opens(ApiKey(key.id, other.secret), stored(key), NOW)


@pytest.mark.parametrize("info", [{"revoked_at": NOW}, {"revoked_at": NOW + timedelta(days=1)}, {"expires_at": NOW}])
def test_revoked_and_expired_keys_open_nothing(info):
    key = ApiKey.new()
    assert not opens(key, stored(key, **info), NOW)


def test_a_key_opens_until_it_expires():
    key = ApiKey.new()
    assert opens(key, stored(key, expires_at=NOW + timedelta(microseconds=1)), NOW)


def test_an_unknown_id_is_compared_all_the_same(monkeypatch: pytest.MonkeyPatch):
    """So that how long it takes does not tell which ids there are."""
    compared = []
    monkeypatch.setattr("chassis.access.keys.hmac.compare_digest", lambda *both: compared.append(both))
    key = ApiKey.new()
    assert not opens(key, None, NOW)
    ((shown, known),) = compared
    assert shown == key.secret_hash
    assert len(known) == len(shown)
