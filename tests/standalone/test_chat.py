"""`ion chat` at a terminal: the answer as it comes."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2
from tests.stack.harness import ROOT
from tests.standalone.command import FRUSTRATED, environment, ion
from tests.standalone.scripted_router import ROUTED, WHO, Router, done, listening, text
from tests.standalone.test_cli import DEAD_VERTEX

TERMINAL = {"FORCE_COLOR": "1", "TERM": "dumb"}  # a terminal without colours
TRANSCRIPT = r"\$ ion chat \"(.+)\"\n((?:    .*\n|\n)+?)\n    \$"


@asynccontextmanager
async def chatting(router: Router, *arguments: str, stdin: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """`ion chat` with this router, at a terminal."""
    async with listening(router) as target:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "standalone", "chat", "--server", target, *arguments),
            cwd=ROOT,
            env=environment() | TERMINAL,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        process.stdin.write(stdin.encode())
        process.stdin.write_eof()
        try:
            async with asyncio.timeout(30):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def outcome(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_choice_and_text_are_printed_as_they_come():
    first, second = asyncio.Event(), asyncio.Event()
    router = Router(ROUTED, first, text("[b]one "), second, text("two"), done())
    async with chatting(router, "hello", "--persona", "lua", "--session", "s") as process:
        assert (await process.stdout.readline()).decode() == WHO
        first.set()
        assert (await process.stdout.readexactly(7)).decode() == "[b]one "
        second.set()
        code, out, err = await outcome(process)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"two\n  Lua +█{18} +0\.90\n  Because of it\.\n", out)
    assert router.requests == [router_pb2.ChatStreamRequest(message="hello", persona="lua", session_id="s")]


async def test_a_reply_that_breaks_off_says_so_and_is_exit_status_1():
    router = Router(ROUTED, text("half a sen"), Reason.REASON_MODEL_INTERRUPTED)
    async with chatting(router, "hello") as process:
        assert await outcome(process) == (1, f"{WHO}half a sen\n", "ion: The reply broke off.\n")


async def test_a_session_goes_on_after_a_reply_that_broke_off():
    router = Router(ROUTED, text("half a sen"), Reason.REASON_MODEL_INTERRUPTED)
    async with chatting(router, stdin="one\ntwo\n") as process:
        code, out, err = await outcome(process)
    assert code == 0
    assert out.count("half a sen\n") == err.count("ion: The reply broke off.") == len(router.requests) == 2


async def test_an_apology_names_who_apologised_and_is_exit_status_1():
    nana = router_pb2.Routing(persona="Nana", resonance_key="error-fallback-statement", reasoning="It could not.")
    async with chatting(Router(ROUTED, text("Sorry."), done(fallback=True, routing=nana)), "hello") as process:
        code, out, _ = await outcome(process)
    assert code == 1
    assert out == f"{WHO}Sorry.\n Nana  error-fallback-statement  0.00\n  It could not.\n"


async def test_an_interrupt_cancels_the_call_and_is_exit_status_130():
    router = Router(ROUTED, text("half a sen"), asyncio.Event())
    async with chatting(router, "hello") as process:
        await process.stdout.readexactly(len(f"{WHO}half a sen".encode()))
        process.send_signal(signal.SIGINT)
        await router.cancelled.wait()
        assert (await outcome(process))[0] == 130


async def test_a_key_is_shown_to_a_server(monkeypatch):
    monkeypatch.setitem(TERMINAL, "ION_API_KEY", "hunter2")
    router = Router(ROUTED, text("Yes."), done())
    async with chatting(router, "hello", "--user", "ann") as process:
        _, out, err = await outcome(process)
    assert router.metadata[0]["authorization"] == "Bearer hunter2"
    assert router.requests[0].user_id == "ann"
    assert "hunter2" not in out + err


@pytest.mark.parametrize("env", [{}, TERMINAL], ids=["piped", "terminal"])
def test_the_transcript_of_the_readme(env):
    message, shown = re.search(TRANSCRIPT, (ROOT / "README.md").read_text("utf-8")).groups()
    assert ion("chat", message, **env).stdout == re.sub(r"^    ", "", shown, flags=re.M)


def test_a_terminal_gets_the_same_answer_as_a_pipe():
    assert ion("chat", FRUSTRATED, **TERMINAL).stdout == ion("chat", FRUSTRATED).stdout


@pytest.mark.parametrize(("env", "line"), [({}, 0), (TERMINAL, 2)], ids=["piped", "terminal"])
def test_who_apologised_is_named_as_soon_as_it_is_known(env, line):
    done = ion("chat", "hello", "--timeout", "5", **DEAD_VERTEX, **env)
    assert done.returncode == 1
    assert "Nana  error-fallback-statement  0.00" in done.stdout.splitlines()[line]
