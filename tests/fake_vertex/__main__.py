"""The fake Vertex as a program, for benchmarks and tests of several processes."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import uvloop

from tests.fake_vertex.server import FakeVertex


async def serve(vertex: FakeVertex) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with vertex:
        sys.stdout.write(f"fake vertex ready on port {vertex.port}\n")
        sys.stdout.flush()
        await ended.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fake_vertex", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="before every answer")
    parser.add_argument("--location", default=None, help="refuse resource names of other locations")
    options = parser.parse_args()
    vertex = FakeVertex(location=options.location, host=options.host, port=options.port, keep_calls=False)
    vertex.delay(options.delay_ms / 1000)
    uvloop.run(serve(vertex))


if __name__ == "__main__":
    main()
