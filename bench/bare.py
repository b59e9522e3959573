"""The empty chain: HTTP, two grpc.aio hops and a canned reply, with the stubs and the sizes of the real one.

A process each; nothing is read, chosen, cached or logged:

    python -m bench.bare front BIND TARGET X_CACHE
    python -m bench.bare middle BIND TARGET
    python -m bench.bare back BIND DELAY_SECONDS
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc.aio
import msgspec
import uvicorn
import uvloop

from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from ion.router.v1 import router_pb2, router_pb2_grpc

TEXT = "가나다 라마바사 아자차카 타파하. " * 12
INSTRUCTIONS = "You are a persona of the empty chain, and this is about as long as a prompt of a real one. " * 8
BODY = msgspec.json.encode({"content": TEXT, "metadata": {"filler": "x" * 700}})


def front(target: str, x_cache: str) -> Any:
    """A raw ASGI application; `x_cache` is the header that ION would send."""
    stub: Any = None
    length = str(len(BODY)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), (b"x-cache", x_cache.encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal stub
        stub = stub or router_pb2_grpc.PersonaRouterServiceStub(grpc.aio.insecure_channel(target))
        if scope["method"] == "POST":
            message = msgspec.json.decode((await receive())["body"])["message"]
            await stub.Chat(router_pb2.ChatRequest(message=message), timeout=30)
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})

    return app


class Middle(router_pb2_grpc.PersonaRouterServiceServicer):
    def __init__(self, target: str) -> None:
        self._stub: Any = llm_pb2_grpc.LlmGatewayServiceStub(grpc.aio.insecure_channel(target))

    async def Chat(self, request: router_pb2.ChatRequest, context: Any) -> router_pb2.ChatResponse:
        prompt = llm_pb2.Prompt(system_instruction=INSTRUCTIONS, contents=[llm_pb2.Content(text=request.message)])
        reply = await self._stub.Generate(llm_pb2.GenerateRequest(prompt=prompt), timeout=30)
        return router_pb2.ChatResponse(content=reply.text, routing=router_pb2.Routing(reasoning="x" * 300))


class Back(llm_pb2_grpc.LlmGatewayServiceServicer):
    def __init__(self, delay_seconds: float) -> None:
        self._delay_seconds = delay_seconds

    async def Generate(self, request: llm_pb2.GenerateRequest, context: Any) -> llm_pb2.GenerateResponse:
        if self._delay_seconds:
            await asyncio.sleep(self._delay_seconds)
        return llm_pb2.GenerateResponse(text=TEXT)


async def serve_grpc(bind: str, add: Any) -> None:
    server = grpc.aio.server()
    add(server)
    server.add_insecure_port(bind)
    await server.start()
    await server.wait_for_termination()


async def middle(bind: str, target: str) -> None:
    servicer = Middle(target)  # type: ignore[abstract]  # Chat is all that is asked of it
    await serve_grpc(bind, lambda server: router_pb2_grpc.add_PersonaRouterServiceServicer_to_server(servicer, server))


async def back(bind: str, delay_seconds: str) -> None:
    servicer = Back(float(delay_seconds))  # type: ignore[abstract]  # Generate is all that is asked of it
    await serve_grpc(bind, lambda server: llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(servicer, server))


def main(role: str, bind: str, *arguments: str) -> None:
    if role == "front":
        serve_http(bind, front(*arguments))
    else:
        uvloop.run({"middle": middle, "back": back}[role](bind, *arguments))


def serve_http(bind: str, app: Any) -> None:
    host, _, port = bind.rpartition(":")
    uvicorn.run(
        app,
        host=host,
        port=int(port),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
