"""The fake Vertex as a program, for benchmarks and tests of several processes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Sequence

import uvloop

from tests.fake_vertex.control import ALLOWED, Command, follow, parse_script, serve_control
from tests.fake_vertex.server import FakeVertex


async def serve(vertex: FakeVertex, script: Sequence[tuple[float, Command]], control_port: int | None) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with vertex, contextlib.AsyncExitStack() as stack:
        if control_port is not None:
            await stack.enter_async_context(await serve_control(vertex, vertex.host, control_port))
        following = asyncio.create_task(follow(vertex, script))
        gc.freeze()  # full collections would stop for all that the imports have made
        sys.stdout.write(f"fake vertex ready on port {vertex.port}\n")
        sys.stdout.flush()
        await ended.wait()
        following.cancel()


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_vertex", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--location", default=None, help="refuse resource names of other locations")
    parser.add_argument("--piece-characters", type=int, default=64, help="length of the pieces of a stream")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before every answer")
    parser.add_argument("--law", action="store_true", help="follow the latency law of the performance report instead")
    parser.add_argument("--seed", default="0", help="of the law and of the errors")
    parser.add_argument("--first-token-share", type=float, default=None, help="of the law's time; all unless given")
    parser.add_argument("--error-rate", type=float, default=0.0, help="share of calls to fail at once")
    parser.add_argument("--script", type=parse_script, default="", help=f"SECONDS:COMMAND;... of {ALLOWED}")
    parser.add_argument("--control-port", type=int, default=None, help="listen there for such commands, one a line")
    return parser.parse_args(arguments)


def fake_of(options: argparse.Namespace) -> FakeVertex:
    vertex = FakeVertex(
        location=options.location,
        host=options.host,
        port=options.port,
        piece_characters=options.piece_characters,
        keep_calls=False,
    )
    vertex.delay(options.delay_ms / 1000)
    vertex.error_rate(options.error_rate, seed=options.seed)
    if options.law:
        vertex.follow_law(seed=options.seed, first_token_share=options.first_token_share)
    return vertex


def main() -> None:
    options = parse_options()
    uvloop.run(serve(fake_of(options), options.script, options.control_port))


if __name__ == "__main__":
    main()
