"""Switches a fake that runs as a program: by a script of times, or line by line over TCP."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

from tests.fake_vertex.server import FakeVertex

Command = Callable[[FakeVertex], Awaitable[None]]


async def _healthy(vertex: FakeVertex) -> None:
    vertex.behave()
    if not vertex.listening:
        await vertex.start()


async def _down(vertex: FakeVertex) -> None:
    await vertex.stop()


async def _hang(vertex: FakeVertex) -> None:
    await _healthy(vertex)
    vertex.hang()


async def _errors(vertex: FakeVertex, *, share: str, seed: str | None) -> None:
    await _healthy(vertex)
    vertex.error_rate(float(share), seed=seed or 0)


async def _delay(vertex: FakeVertex, *, seconds: str) -> None:
    vertex.delay(float(seconds))
    vertex.follow_no_law()


async def _law(vertex: FakeVertex, *, seed: str, share: str | None) -> None:
    vertex.follow_law(seed=seed, first_token_share=float(share) if share else None)


_SHARE: Final = r"(?P<share>0(\.\d+)?|1(\.0+)?)"
_COMMANDS: Final[dict[str, Callable[..., Awaitable[None]]]] = {
    r"healthy": _healthy,
    r"down": _down,
    r"hang": _hang,
    rf"errors={_SHARE}(,(?P<seed>[\w-]+))?": _errors,
    r"delay=(?P<seconds>\d+(\.\d+)?)": _delay,
    rf"law=(?P<seed>[\w-]+)(,{_SHARE})?": _law,
}
ALLOWED: Final = "healthy, down, hang, errors=SHARE[,SEED], delay=SECONDS or law=SEED[,FIRST_TOKEN_SHARE]"


def parse_command(text: str) -> Command:
    """Raises ValueError saying what is allowed."""
    for pattern, action in _COMMANDS.items():
        if match := re.fullmatch(pattern, text.strip()):
            return partial(action, **match.groupdict())
    raise ValueError(f"{text.strip()!r} is none of {ALLOWED}")


def parse_script(text: str) -> list[tuple[float, Command]]:
    """`SECONDS:COMMAND;...`, seconds since the start, in order. Raises ValueError saying what is allowed."""
    steps = [part.partition(":") for part in text.split(";") if part.strip()]
    if not all(re.fullmatch(r"\s*\d+(\.\d+)?\s*", at) for at, _, _ in steps):
        raise ValueError(f"{text!r} is not SECONDS:COMMAND;...")
    script = [(float(at), parse_command(command)) for at, _, command in steps]
    if script != sorted(script, key=lambda step: step[0]):
        raise ValueError(f"{text!r} is not in order of time")
    return script


async def follow(vertex: FakeVertex, script: Sequence[tuple[float, Command]]) -> None:
    loop = asyncio.get_running_loop()
    started = loop.time()
    for at_seconds, command in script:
        await asyncio.sleep(started + at_seconds - loop.time())
        await command(vertex)


async def serve_control(vertex: FakeVertex, host: str, port: int) -> asyncio.Server:
    """Takes a command a line and answers it with a line: `ok`, or `error: ` and why. `counts` is answered with the
    calls that have come in, by method, as JSON."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async for line in reader:
            writer.write(f"{await _obey(vertex, line.decode(errors='replace').strip())}\n".encode())
            await writer.drain()
        writer.close()

    return await asyncio.start_server(serve, host, port)


async def _obey(vertex: FakeVertex, line: str) -> str:
    if line == "counts":
        return json.dumps(vertex.counts)
    try:
        await parse_command(line)(vertex)
    except ValueError as error:
        return f"error: {error}"
    return "ok"
