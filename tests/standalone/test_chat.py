"""`ion chat` at a terminal: the answer as it comes."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from chassis.errors import IonError
from chassis.server import new_server
from ion.error.v1.reason_pb2 import Reason
from ion.router.v1 import router_pb2, router_pb2_grpc
from tests.stack.harness import FOREIGN, ROOT
from tests.standalone.test_cli import DEAD_VERTEX, FRUSTRATED, ion

TERMINAL = {"FORCE_COLOR": "1", "TERM": "dumb"}  # a terminal without colours
TRANSCRIPT = r"\$ ion chat \"(.+)\"\n((?:    .*\n|\n)+?)\n    \$"

LUA = router_pb2.Routing(
    persona="Lua",
    resonance_key="calm-medium-inquiry",
    confidence=0.9,
    scores=[router_pb2.PersonaScore(persona="Lua", score=0.9)],
    reasoning="Because of it.",
)
ROUTED = router_pb2.ChatStreamResponse(routed=router_pb2.Routed(routing=LUA))
DONE = router_pb2.ChatStreamResponse(done=router_pb2.ChatDone())
WHO = "🌊 Lua  calm-medium-inquiry  0.90\n"


def text(said: str) -> router_pb2.ChatStreamResponse:
    return router_pb2.ChatStreamResponse(text=said)


class Router(router_pb2_grpc.PersonaRouterServiceServicer):
    """Streams `script`, waits at its events and fails at its reasons."""

    def __init__(self, *script: router_pb2.ChatStreamResponse | asyncio.Event | Reason.ValueType) -> None:
        self.script = script
        self.requests: list[router_pb2.ChatStreamRequest] = []
        self.cancelled = asyncio.Event()

    async def ListPersonas(self, request, context):
        return router_pb2.ListPersonasResponse(count=1, personas=[router_pb2.Persona(name="Lua", symbol="🌊")])

    async def ChatStream(self, request, context):
        self.requests.append(request)
        try:
            for step in self.script:
                if isinstance(step, asyncio.Event):
                    await step.wait()
                elif isinstance(step, int):
                    raise IonError(step)
                else:
                    yield step
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@asynccontextmanager
async def chatting(router: Router, *arguments: str, stdin: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """`ion chat` with this router, at a terminal."""
    server = new_server()
    router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(router, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "standalone", "chat", "--server", f"127.0.0.1:{port}", *arguments),
        cwd=ROOT,
        env={key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)} | TERMINAL,
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
        await server.stop(None)


async def outcome(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_choice_and_text_are_printed_as_they_come():
    first, second = asyncio.Event(), asyncio.Event()
    router = Router(ROUTED, first, text("[b]one "), second, text("two"), DONE)
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
    done = router_pb2.ChatStreamResponse(done=router_pb2.ChatDone(fallback=True, routing=nana))
    async with chatting(Router(ROUTED, text("Sorry."), done), "hello") as process:
        code, out, _ = await outcome(process)
    assert code == 1
    assert out == f"{WHO}Sorry.\n Nana  error-fallback-statement  0.00\n  It could not.\n"


async def test_an_interrupt_cancels_the_call():
    router = Router(ROUTED, text("half a sen"), asyncio.Event())
    async with chatting(router, "hello") as process:
        await process.stdout.readexactly(len(f"{WHO}half a sen".encode()))
        process.send_signal(2)
        await router.cancelled.wait()
        assert (await outcome(process))[0] != 0


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
