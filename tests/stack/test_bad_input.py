"""Bad input gets a clear error in JSON, with the request's id, and loses nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from ion.router.v1 import router_pb2, router_pb2_grpc

LONGEST = "가" * 1000
URGENT = "지금 당장 해주세요!! 급해요!!"


async def post(chain, content: bytes, *, path: str = "/chat", content_type: str = "application/json"):
    return await chain.http.post(path, content=content, headers={"Content-Type": content_type})


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        (b'{"message": ""}', ["body", "message"]),
        (b'{"message": " \\n\\t "}', ["body", "message"]),
        (json.dumps({"message": LONGEST + "가"}).encode(), ["body", "message"]),
        (b'{"message": "a\\u0000b"}', ["body", "message"]),
        (b'{"message": "a\\u001b[31mb"}', ["body", "message"]),
        (b"{}", ["body", "message"]),
        (b'{"message": null}', ["body", "message"]),
        (b'{"message": 5}', ["body", "message"]),
        (b'{"message": ["hi"]}', ["body", "message"]),
        (b'{"message": "hi", "user_id": 5}', ["body", "user_id"]),
        (json.dumps({"message": "hi", "user_id": "u" * 129}).encode(), ["body", "user_id"]),
        (json.dumps({"message": "hi", "session_id": "s" * 129}).encode(), ["body", "session_id"]),
        (b"[]", ["body"]),
        (b"null", ["body"]),
        (b'"hello"', ["body"]),
        (b"", ["body"]),
        (b"{bad", ["body"]),
        (b'{"message": "hi"', ["body"]),
        (b'{"message": "\xff\xfe"}', ["body"]),
        (b'{"message": "\\ud800"}', ["body"]),
    ],
)
async def test_invalid_bodies(chain, vertex, body, loc):
    response = await post(chain, body)
    assert response.status_code == 422
    answer = response.json()
    assert answer["detail"][0]["loc"] == loc
    assert answer["detail"][0]["msg"]
    assert answer["detail"][0]["type"]
    assert answer["request_id"] == response.headers["X-Request-Id"]
    assert not vertex.calls


async def test_longest_message_and_white_space_around_it_are_taken(chain, vertex, unique):
    longest = unique("가").ljust(1000, "나")
    response = await chain.chat(f"  {longest}\n")
    assert response.status_code == 200
    assert vertex.calls[0].request.contents[0].parts[0].text == longest


async def test_unknown_members_are_ignored(chain, vertex, unique):
    assert (await chain.chat(unique("hello"), mood="fine")).status_code == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
async def test_wrong_media_type(chain, content_type):
    response = await post(chain, b'{"message": "hi"}', content_type=content_type)
    assert response.status_code == 415
    assert response.json()["request_id"] == response.headers["X-Request-Id"]


async def test_too_large_a_body(chain):
    response = await post(chain, json.dumps({"message": "x" * (2 << 20)}).encode())
    assert response.status_code == 413
    assert response.json()["request_id"]


async def test_too_large_a_body_without_a_length(chain):
    async def pieces():
        for _ in range(32):
            yield b" " * (1 << 16)

    response = await chain.http.post("/chat", content=pieces(), headers={"Content-Type": "application/json"})
    assert response.status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/chat", 405), ("DELETE", "/personas", 405)]
)
async def test_unknown_routes_and_methods(chain, method, path, status):
    response = await chain.http.request(method, path)
    assert response.status_code == status
    assert response.json()["request_id"] == response.headers["X-Request-Id"]


async def test_unknown_persona(chain, vertex):
    response = await chain.chat("hello", persona="Bob")
    assert response.status_code == 404
    assert response.json()["reason"] == "PERSONA_NOT_FOUND"
    assert "Lua" in response.json()["detail"]
    assert not vertex.calls


@pytest.mark.parametrize("body", [{}, {"message": "hi", "resonance_key": "calm-medium-inquiry"}, {"message": ""}])
async def test_route_wants_exactly_one(chain, body):
    assert (await chain.http.post("/route", json=body)).status_code == 422


async def test_malformed_ids_are_replaced_and_not_echoed(chain, vertex, unique):
    headers = {"X-Request-Id": "<script>", "traceparent": "00-zz-zz-00"}
    response = await chain.http.post("/chat", json={"message": unique("hi")}, headers=headers)
    assert len(response.headers["X-Request-Id"]) == 32
    assert response.headers["traceparent"].startswith("00-")
    assert "zz" not in response.headers["traceparent"]


@pytest.mark.parametrize(
    ("request_fields", "code", "reason", "field"),
    [
        ({"message": " "}, grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_BLANK", "message"),
        ({"message": LONGEST + "x"}, grpc.StatusCode.INVALID_ARGUMENT, "MESSAGE_TOO_LONG", "message"),
        ({"message": "a\0b"}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "message"),
        ({"message": "a", "user_id": "u" * 129}, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "user_id"),
        ({"message": "a", "persona": "Bob"}, grpc.StatusCode.NOT_FOUND, "PERSONA_NOT_FOUND", "persona"),
    ],
)
async def test_grpc_clients_get_a_status_with_details(router_channel, request_fields, code, reason, field):
    stub = router_pb2_grpc.PersonaRouterServiceStub(router_channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Chat(router_pb2.ChatRequest(**request_fields), timeout=10)
    assert caught.value.code() is code
    info, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    status = await rpc_status.aio.from_call(_Finished(caught.value))
    for detail in status.details:
        detail.Unpack(info)
        detail.Unpack(violations)
    assert (info.reason, info.domain) == (reason, "ion")
    assert [violation.field for violation in violations.field_violations] == [field]


class _Finished:
    """An aio error as the call that `rpc_status.aio` wants."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self._error = error

    async def trailing_metadata(self):
        return self._error.trailing_metadata()

    async def code(self):
        return self._error.code()

    async def details(self):
        return self._error.details()


async def test_batch_route_fails_line_by_line(router_channel):
    stub = router_pb2_grpc.PersonaRouterServiceStub(router_channel)
    requests = [router_pb2.RouteRequest(message=message) for message in ("hello there", " ", URGENT)]
    results = (await stub.BatchRoute(router_pb2.BatchRouteRequest(requests=requests), timeout=10)).results
    assert [result.WhichOneof("outcome") for result in results] == ["response", "failure", "response"]
    assert results[2].response.routing.persona == "Nana"


async def test_a_head_without_end_is_refused_and_a_long_body_is_not(chain):
    host, port = chain.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /livez HTTP/1.1\r\nHost: ion\r\n")
    for number in range(40):
        writer.write(b"X-%d: %s\r\n" % (number, b"x" * 4000))
    answer = b""
    async with asyncio.timeout(10):
        with suppress(ConnectionError):  # what is still on its way when it closes may cost the answer
            answer = await reader.read()
    assert answer[:13] in (b"HTTP/1.1 431 ", b"")
    writer.close()
    body = json.dumps({"message": "hello", "user_id": "ann", "padding": "x" * 300_000}).encode()
    for _ in range(3):
        assert (await post(chain, body)).status_code == 200
