"""A client that goes away takes its model call with it, unless others wait for the same reply."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import httpx

from ion.router.v1 import router_pb2, router_pb2_grpc


async def leave(request: asyncio.Task[object]) -> None:
    request.cancel()
    with suppress(asyncio.CancelledError, httpx.TransportError):
        await request


async def test_http_client_that_leaves_cancels_the_model_call(chain, vertex, unique):
    vertex.hang()
    async with httpx.AsyncClient(base_url=chain.url) as client:
        request = asyncio.create_task(client.post("/chat", json={"message": unique("hello")}, timeout=30))
        await vertex.wait_for_calls(1)
        await leave(request)
    await vertex.wait_for_outcome("cancelled")
    assert len(vertex.calls) == 1


async def test_grpc_client_that_cancels_cancels_the_model_call(chain, router_channel, vertex, unique):
    vertex.hang()
    stub = router_pb2_grpc.PersonaRouterServiceStub(router_channel)
    call = stub.Chat(router_pb2.ChatRequest(message=unique("hello")), timeout=30)
    await vertex.wait_for_calls(1)
    call.cancel()
    await vertex.wait_for_outcome("cancelled")


async def test_others_that_wait_for_the_same_reply_still_get_it(chain, vertex, unique):
    vertex.hang()
    vertex.answer("for the patient")
    message = unique("hello")
    stays = asyncio.create_task(chain.chat(message))
    async with httpx.AsyncClient(base_url=chain.url) as client:
        leaves = asyncio.create_task(client.post("/chat", json={"message": message}, timeout=30))
        await vertex.wait_for_calls(1)
        # A third message proves that the second has been taken up: requests are read in order of arrival.
        other = asyncio.create_task(chain.chat(unique("another")))
        await vertex.wait_for_calls(2)
        await leave(leaves)
    vertex.release()
    assert (await stays).json()["content"] == "for the patient"
    await other
    assert [call.outcome for call in vertex.calls] == ["ok", "ok"]


async def test_a_client_that_left_leaves_no_trace_of_a_defect(chain, vertex, unique):
    vertex.hang()
    async with httpx.AsyncClient(base_url=chain.url) as client:
        request = asyncio.create_task(client.post("/chat", json={"message": unique("hello")}, timeout=30))
        await vertex.wait_for_calls(1)
        await leave(request)
    await vertex.wait_for_outcome("cancelled")
    vertex.release()
    assert (await chain.chat(unique("next"))).status_code == 200
    for process in chain.processes.values():
        assert not [line for line in process.lines if "Traceback" in line or "defect" in line]
