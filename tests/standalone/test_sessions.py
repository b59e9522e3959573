"""Sessions at the terminal: kept in a real SQLite file, here and in a running ION."""

from __future__ import annotations

import asyncio
import os
import re
import stat
from datetime import UTC, datetime

import pytest

from tests.stack.harness import standalone as running
from tests.standalone.command import FRUSTRATED, ion, jsons
from tests.standalone.terminal import CTRL_D, terminal


@pytest.fixture
def kept(tmp_path):
    """`ion` with a state folder of its own."""

    def run(*arguments: str, **more: str):
        return ion(*arguments, **{"ION_STATE_DIR": str(tmp_path), "TZ": "Asia/Seoul"} | more)

    return run


def test_what_was_said_is_remembered_by_the_next_process(kept):
    assert jsons(kept("chat", "--session", "s", "--json", FRUSTRATED).stdout)[0]["metadata"]["history"] == "stored"
    kept("chat", "--session", "s", "hello")
    (session,) = jsons(kept("sessions", "--json").stdout)
    assert (session["session_id"], session["turns"], session["title"]) == ("s", 2, FRUSTRATED)
    turns = jsons(kept("sessions", "show", "s", "--json").stdout)
    assert [turn["message"] for turn in turns] == [FRUSTRATED, "hello"]
    assert turns[0]["persona_used"] == "Lua"


def test_one_message_remembers_nothing_unless_that_is_asked_for(kept):
    kept("chat", "hello")
    assert kept("sessions", "--json").stdout == ""
    assert "No sessions" in kept("sessions").stderr
    shown = kept("chat", "--new", "hello").stderr
    (session,) = jsons(kept("sessions", "--json").stdout)
    assert shown == f"session {session['session_id']}\n"
    assert "session" not in kept("chat", "--new", "--json", "hello").stderr


@pytest.mark.parametrize("more", [["--new"], ["--no-session"]])
def test_a_session_is_named_in_one_way(kept, more):
    done = kept("chat", "--session", "s", *more, "hello")
    assert done.returncode == 2
    assert "at most one of --session, --new and --no-session" in done.stderr


def test_users_do_not_see_each_others_sessions(kept):
    kept("chat", "--session", "s", "--user", "ann", "hello")
    assert kept("sessions", "--json").stdout == ""
    assert kept("sessions", "show", "s", "--user", "bob").returncode == 1
    assert len(jsons(kept("sessions", "--json", "--user", "ann").stdout)) == 1


def test_sessions_are_shown_as_they_were(kept):
    reply = kept("chat", "--session", "s", FRUSTRATED).stdout
    shown = kept("sessions", "show", "s").stdout
    assert re.match(r"session s: 1 turn, \d{4}-\d\d-\d\d \d\d:\d\d to ", shown)
    assert f"> {FRUSTRATED}\n" in shown
    who_and_text = reply[: reply.index("\n  Lua  ")]
    assert who_and_text in shown


def test_times_are_those_of_the_machine(kept):
    kept("chat", "--session", "s", "hello")
    used = datetime.fromisoformat(jsons(kept("sessions", "--json").stdout)[0]["updated_at"])
    assert used.tzinfo == UTC
    for zone, hours in (("Asia/Seoul", 9), ("UTC", 0)):
        hour = (used.hour + hours) % 24
        assert f" {hour:02}:{used.minute:02} " in kept("sessions", TZ=zone).stdout


def test_the_one_last_used_comes_first_up_to_a_limit(kept):
    for name in ("a", "b", "a"):
        kept("chat", "--session", name, "hello")
    assert [session["session_id"] for session in jsons(kept("sessions", "--json").stdout)] == ["a", "b"]
    assert [session["session_id"] for session in jsons(kept("sessions", "--json", "--limit", "1").stdout)] == ["a"]


def test_an_export_is_what_show_prints_as_json(kept, tmp_path):
    kept("chat", "--session", "s", FRUSTRATED)
    lines = kept("sessions", "export", "s").stdout
    assert lines == kept("sessions", "show", "s", "--json").stdout
    assert kept("sessions", "export", "s", "--out", str(tmp_path / "out.jsonl")).stdout == ""
    assert (tmp_path / "out.jsonl").read_text("utf-8") == lines


def test_an_export_goes_through_links_and_into_pipes(kept, tmp_path):
    kept("chat", "--session", "s", "hello")
    lines = kept("sessions", "export", "s").stdout
    link, pipe = tmp_path / "link.jsonl", tmp_path / "pipe"
    link.symlink_to(tmp_path / "kept.jsonl")
    kept("sessions", "export", "s", "--out", str(link))
    assert link.is_symlink()
    assert (tmp_path / "kept.jsonl").read_text("utf-8") == lines
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    kept("sessions", "export", "s", "--out", str(pipe))
    assert os.read(reading, 1 << 20).decode() == lines
    os.close(reading)
    assert pipe.is_fifo()


def test_an_export_that_fails_leaves_no_file_and_the_old_one_alone(kept, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    done = kept("sessions", "export", "nobody", "--out", str(out))
    assert (done.returncode, done.stderr) == (1, "ion: There is no session of that id.\n")
    assert out.read_text() == "old"
    done = kept("sessions", "export", "nobody", "--out", str(tmp_path / "missing" / "out.jsonl"))
    assert done.returncode == 2
    assert "cannot be written: no such file" in done.stderr
    assert not list(tmp_path.glob(".*draft"))


async def test_a_session_is_deleted_once_that_is_confirmed(kept, tmp_path):
    kept("chat", "--session", "s", "hello")
    assert kept("sessions", "delete", "s").returncode == 2  # nobody to ask
    for key, status in (("n", 1), ("y", 0)):
        async with terminal("sessions", "delete", "s", ION_STATE_DIR=str(tmp_path)) as tty:
            await tty.shows("Delete the session s")
            tty.say(key)
            assert await tty.ended() == status
        left = await asyncio.to_thread(kept, "sessions", "--json")
        assert len(jsons(left.stdout)) == status
    done = await asyncio.to_thread(kept, "sessions", "delete", "--yes", "s", "--json")
    assert done.returncode == 1
    assert jsons(done.stderr)[0]["error"]["reason"] == "SESSION_NOT_FOUND"


def test_an_option_before_the_command_is_refused_rather_than_ignored(kept):
    done = kept("sessions", "--user", "ann", "delete", "--yes", "s")
    assert done.returncode == 2
    assert "--user must come after delete" in done.stderr


async def test_a_conversation_is_gone_on_with(kept, tmp_path):
    async with terminal("chat", ION_STATE_DIR=str(tmp_path)) as tty:
        await tty.shows("> ")
        name = re.search(r"^session (\w+)$", tty.text, re.M)[1]
        tty.say("hello")
        await tty.shows("Tone")
        await tty.shows("> ")
        tty.press(CTRL_D)
        assert await tty.ended() == 0
    async with terminal("chat", "--session", name, ION_STATE_DIR=str(tmp_path)) as tty:
        await tty.shows(f"session {name}: 1 turn, ")
        await tty.shows("> ")
        tty.say("again")
        await tty.shows("Tone")
        tty.say("/quit")
        assert await tty.ended() == 0
    async with terminal("chat", "--session", "other", ION_STATE_DIR=str(tmp_path)) as tty:
        await tty.shows("session other: new")
    turns = jsons((await asyncio.to_thread(kept, "sessions", "show", name, "--json")).stdout)
    assert [turn["message"] for turn in turns] == ["hello", "again"]


async def test_a_running_ion_and_commands_share_what_is_kept(kept, tmp_path):
    async with running({"ION_STATE_DIR": str(tmp_path)}) as chain:
        await chain.chat("hello", session_id="web")

        def asked(*arguments: str):
            return kept(*arguments, "--server", chain.router, ION_STATE_DIR=os.devnull)

        def both() -> None:
            kept("chat", "--session", "web", "from here")
            asked("chat", "--session", "web", "from there")
            turns = [turn["message"] for turn in jsons(asked("sessions", "show", "web", "--json").stdout)]
            assert turns == ["hello", "from here", "from there"]
            assert asked("sessions", "export", "web").stdout == kept("sessions", "export", "web").stdout
            assert asked("sessions", "delete", "web", "--yes").returncode == 0
            assert kept("sessions", "--json").stdout == ""

        await asyncio.to_thread(both)


def test_what_is_kept_is_nobody_elses(kept, tmp_path):
    kept("chat", "--session", "s", "hello")
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert files
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 for path in files)


def test_a_database_that_is_away_is_said(kept):
    away = {"DATABASE_URL": "postgresql://ion@127.0.0.1:1/ion"}
    done = kept("chat", "--session", "s", "hello", **away)
    assert done.returncode == 0
    assert "not remembered: the database does not answer" in done.stderr
    done = kept("sessions", "--json", **away)
    assert done.returncode == 1
    assert jsons(done.stderr)[0]["error"] == {
        "reason": "DATABASE_UNAVAILABLE",
        "message": "The database does not answer.",
        "retryable": True,
    }
