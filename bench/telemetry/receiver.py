"""`python -m bench.telemetry.receiver PORT SECONDS`: takes whatever it is sent over OTLP, and answers after so long."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc
import grpc.aio


class _Anything(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def service(self, _call: Any) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._take)

    async def _take(self, _request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(self._seconds)
        return b""  # each of the three answers, with nothing in it


async def main(port: int, seconds: float) -> None:
    server = grpc.aio.server([], [_Anything(seconds)])
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
