"""`ion keys`, and what a key opens."""

from __future__ import annotations

import asyncio
import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from standalone.keys import parse_period
from tests.postgres import Postgres
from tests.stack.harness import standalone as running
from tests.standalone.command import ion, jsons


async def command(*arguments: str, **env: str):
    done = await asyncio.to_thread(ion, *arguments, **env)
    assert done.returncode == 0, done.stderr
    return done


async def test_a_key_opens_what_is_locked_until_it_is_revoked(tmp_path):
    state = {"ION_STATE_DIR": str(tmp_path)}
    key = (await command("keys", "create", "ci", **state)).stdout.strip()
    revoked = jsons((await command("keys", "create", "old", "--json", **state)).stdout)[0]
    await command("keys", "revoke", revoked["id"], **state)
    async with running({"ION_AUTH": "api-key", "ION_RATE_LIMIT": "off"} | state) as chain:
        statuses = [
            (await chain.http.post("/chat", json={"message": "hello"}, headers={"X-API-Key": shown})).status_code
            for shown in (key, revoked["key"], "ion_nonsense")
        ]
        later = (await command("keys", "create", "later", **state)).stdout.strip()
        said = await command("chat", "--json", "--server", chain.router, "hello", ION_API_KEY=later)
        refused = await asyncio.to_thread(ion, "chat", "--json", "--server", chain.router, "hello", ION_API_KEY="wrong")
        loads = [
            jsons((await asyncio.to_thread(ion, "load", chain.url, "--seconds", "0.1", "--json", **shown)).stdout)[0]
            for shown in ({"ION_API_KEY": key}, {})
        ]
    assert statuses == [200, 401, 401]
    assert jsons(said.stdout)[0]["metadata"]["llm"]
    assert refused.returncode == 1
    (told,) = jsons(refused.stderr)
    assert told["error"]["reason"] == "UNAUTHENTICATED"
    assert [load["errors"].keys() for load in loads] == [set(), {"UNAUTHENTICATED"}]
    assert "wrong" not in refused.stdout + refused.stderr


def test_a_key_stands_alone_on_standard_output_and_nowhere_else(tmp_path):
    done = ion("keys", "create", "ci", ION_STATE_DIR=str(tmp_path))
    (key,) = done.stdout.splitlines()
    assert key.startswith("ion_")
    assert key not in done.stderr
    secret = key.rpartition("_")[2].encode()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(secret in path.read_bytes() for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in files)


def test_keys_are_listed_without_what_is_secret(tmp_path):
    state = {"ION_STATE_DIR": str(tmp_path)}
    key = ion("keys", "create", "ci", "--tier", "pro", "--expires", "90d", **state).stdout.strip()
    ion("keys", "create", "gone", "--expires", "1s", **state)
    made = jsons(ion("keys", "create", "old", "--json", **state).stdout)[0]
    ion("keys", "revoke", made["id"], **state)
    listed = ion("keys", "list", "--json", **state).stdout
    keys = {row["name"]: row for row in jsons(listed)}
    assert (keys["ci"]["tier"], keys["ci"]["state"], keys["old"]["state"]) == ("pro", "valid", "revoked")
    lifetime = datetime.fromisoformat(keys["ci"]["expires_at"]) - datetime.fromisoformat(keys["ci"]["created_at"])
    assert lifetime == timedelta(days=90)
    assert keys["old"]["expires_at"] is None
    assert "key" not in keys["ci"]
    shown = listed + ion("keys", "list", **state).stdout
    assert key.rpartition("_")[2] not in shown
    assert made["key"].rpartition("_")[2] not in shown
    assert keys["ci"]["id"] in ion("keys", "list", **state).stdout


def test_a_key_that_is_not_there_cannot_be_revoked(tmp_path):
    done = ion("keys", "revoke", "nobody", "--json", ION_STATE_DIR=str(tmp_path))
    assert done.returncode == 1
    (told,) = jsons(done.stderr)
    assert told["error"] == {"reason": "KEY_NOT_FOUND", "message": "There is no key of that id.", "retryable": False}


def test_keys_of_a_postgresql_server(postgres_server: Postgres):
    url = {"DATABASE_URL": postgres_server.new_database()}
    made = jsons(ion("keys", "create", "ci", "--json", **url).stdout)[0]
    assert [row["id"] for row in jsons(ion("keys", "list", "--json", **url).stdout)] == [made["id"]]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["ci", "--expires", ""], 2, "--expires="),
        (["ci", "--expires", "90"], 2, "--expires=90: must be a whole number and one of s, m, h, d, w"),
        (["ci", "--tier", "Not One"], 1, "tier: must be"),
        (["x" * 101], 1, "name: must be"),
    ],
)
def test_what_makes_no_key(tmp_path: Path, arguments, status, words):
    done = ion("keys", "create", *arguments, ION_STATE_DIR=str(tmp_path))
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_database_that_is_away_is_one_line():
    done = ion("keys", "list", DATABASE_URL="postgresql://ion@127.0.0.1:1/ion")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "ion: The database does not answer.\n")


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("1s", timedelta(seconds=1)),
        ("90d", timedelta(days=90)),
        ("2w", timedelta(weeks=2)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_periods(text, period):
    assert parse_period(text) == period


@pytest.mark.parametrize("text", ["", "d", "0d", "-1d", "1.5h", "1 d", "36501d", "1y", "९d", "1d\n"])
def test_what_is_no_period(text):
    with pytest.raises(ValueError, match="must be a whole number"):
        parse_period(text)
