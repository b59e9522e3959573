"""`ion load` against a real ION."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.stack.harness import Chain, free_port, until
from tests.stack.harness import standalone as running
from tests.standalone.command import ion, jsons
from tests.standalone.terminal import CTRL_C, terminal

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Chain]:
    async with running({"ION_STATE_DIR": str(tmp_path_factory.mktemp("state"))}) as started:
        yield started


async def load(*arguments: str, status: int = 0, **env: str) -> dict:
    done = await asyncio.to_thread(ion, "load", "--json", "--seconds", "0.4", *arguments, **env)
    assert done.returncode == status, done.stderr
    (told,) = jsons(done.stdout)
    return told


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_what_it_tells(chain, protocol, stream):
    where = ["--grpc", chain.router] if protocol == "grpc" else [chain.url]
    told = await load(*where, "--callers", "2", *(["--stream"] if stream else []))
    assert told["sent"] == told["ok"] > 2
    assert told["errors"] == {}
    assert told["requests_per_second"] == pytest.approx(told["ok"] / told["seconds"], rel=0.01)
    latency = told["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert sum(told["personas"].values()) == pytest.approx(1, abs=0.01)
    assert told["cache"].keys() <= {"hit", "miss", "coalesced"}
    assert told["history"] == {}
    if stream:
        assert 0 < told["first_text_ms"]["p50"] <= latency["max"]
    else:
        assert told["first_text_ms"] is None


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_answers_can_be_made_anew_each_time(chain, protocol, tmp_path):
    (tmp_path / "one").write_text('{"message": "hello"}')
    where = ["--grpc", chain.router] if protocol == "grpc" else [chain.url]
    told = await load(*where, "--callers", "1", "--file", str(tmp_path / "one"), "--bypass-cache")
    assert told["ok"] > 1
    assert "hit" not in told["cache"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_sessions_are_kept_and_then_deleted(chain, protocol):
    where = ["--grpc", chain.router] if protocol == "grpc" else [chain.url]
    told = await load(*where, "--session", "--user", "나", "--callers", "2")
    assert told["history"] == {"stored": 1.0}
    left = await chain.http.get("/sessions", headers={"X-User-Id": "나".encode()})
    assert left.json()["sessions"] == []


async def test_a_rate_is_kept(chain):
    told = await load(chain.url, "--rate", "20")
    assert told["sent"] == 8
    assert told["seconds"] >= 0.35  # when the last one is due


async def test_the_messages_of_a_file_are_said(chain, tmp_path):
    file = tmp_path / "messages.jsonl"
    file.write_text(json.dumps({"message": "왜 이게 안 되는지 모르겠어요. 답답해요."}))
    assert (await load(chain.url, "--file", str(file)))["personas"] == {"Lua": 1.0}
    file.write_text('{"message": "hello"}\n{"text": "hello"}\n')
    done = await asyncio.to_thread(ion, "load", chain.url, "--file", str(file))
    assert done.returncode == 2
    assert "message 2" in done.stderr


async def test_a_table_moves_at_a_terminal_and_stays_in_the_end(chain):
    async with terminal("load", chain.url, "--seconds", "1") as tty:
        assert await tty.ended() == 0
        await tty.shows("latency")
        await tty.shows("P99")
    assert tty.text.count("sent") > 2


async def test_an_interrupted_run_tells_what_came_of_it(chain):
    async with terminal("load", chain.url, "--seconds", "60") as tty:

        async def answered() -> bool:
            return bool(re.search(r"ok +│ [1-9]", tty.text))

        await until(answered)
        tty.press(CTRL_C)
        assert await tty.ended() == 130
    assert re.search(r"ok +│ [1-9]", tty.text.partition("^C")[2])


async def test_a_server_that_is_away_is_exit_status_1_and_not_asked_without_a_pause():
    told = await load(f"http://127.0.0.1:{free_port()}", "--callers", "1", status=1)
    assert (told["ok"], told["latency_ms"]) == (0, None)
    assert 1 <= told["errors"]["UNREACHABLE"] <= 9
    told = await load("--grpc", f"127.0.0.1:{free_port()}", "--callers", "1", status=1)
    assert told["errors"].keys() == {"ROUTER_UNAVAILABLE"}


async def test_another_machine_is_left_alone_unless_that_is_asked_for():
    for where in (["http://192.0.2.1"], ["--grpc", "192.0.2.1:50051"], ["http://127.1:1"]):
        done = await asyncio.to_thread(ion, "load", *where)
        assert done.returncode == 2
        assert "--allow-remote" in done.stderr
    # Not an address as such, but what it means is this machine.
    told = await load("http://127.1:1", "--allow-remote", status=1)
    assert told["errors"].keys() == {"UNREACHABLE"}
