"""What is told of one exchange: its span, its measurements, its line in the log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from chassis import telemetry
from chassis.caller import Admitted, Door, OpenDoor, Shown
from chassis.errors import IonError
from gateway_http import exchange, router_client
from gateway_http.app import build_app
from gateway_http.health import HealthMonitor
from gateway_http.router_client import RouterClient
from gateway_http.settings import HttpSettings
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from tests.gateway_http.serving import ScriptedRouter, choice, forever, routing
from tests.observed import Measured, measured, recorded_spans

pytestmark = pytest.mark.asyncio(loop_scope="module")
EVENTS = {"Accept": "text/event-stream"}
HELLO = {"message": "비밀 인사"}
OPENAI = {"model": "ion-auto", "messages": [{"role": "user", "content": "비밀 인사"}]}
GENERATION = llm_pb2.Generation(model="m", cache=llm_pb2.CACHE_STATUS_HIT, finish_reason=llm_pb2.FINISH_REASON_STOP)
ANSWER = router_pb2.ChatResponse(content="hi", generation=GENERATION, **choice())
ROUTED = router_pb2.ChatStreamResponse(routed=router_pb2.Routed(**choice()))
TEXT = router_pb2.ChatStreamResponse(text="hi")
DONE = router_pb2.ChatStreamResponse(done=router_pb2.ChatDone(generation=GENERATION))


class Refusing:
    def __init__(self, reason: Reason.ValueType) -> None:
        self._reason = reason

    async def admit(self, shown: Shown) -> Admitted:
        raise IonError(self._reason)

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None: ...


@dataclass
class Gateway:
    """Without sockets: an answer is there when its exchange has ended."""

    channel: grpc.aio.Channel
    router: ScriptedRouter

    def app(self, door: Door | None = None, **settings: Any) -> Any:
        monitor = HealthMonitor(self.channel, self.channel)
        app, _ = build_app(HttpSettings(**settings), RouterClient(self.channel), monitor, door or OpenDoor())
        return app

    async def ask(self, method: str, path: str, body: Any = None, *, app: Any = None, **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app or self.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
            return await http.request(method, path, json=body, headers=headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Gateway]:
    router = ScriptedRouter()
    async with routing(router) as channel:
        yield Gateway(channel, router)


@pytest.fixture
def gateway(started: Gateway) -> Gateway:
    started.router.reset()
    started.router.script |= {"Chat": ANSWER, "ChatStream": [ROUTED, TEXT, TEXT, DONE]}
    return started


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded_spans() as exporter:
        yield exporter


@pytest.fixture
def metrics() -> Iterator[Measured]:
    with measured() as seen:
        yield seen


def http_span(spans: InMemorySpanExporter) -> ReadableSpan:
    """The only one."""
    (found,) = [span for span in spans.get_finished_spans() if "http.request.method" in (span.attributes or {})]
    return found


async def leave(app: Any, path: str, body: Any, is_time: Callable[[list[Any]], bool], **headers: str) -> None:
    """Ask, and go away once it is time to by what was sent."""
    sent: list[Any] = []
    asked = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Any:
        if asked:
            return asked.pop()
        while not is_time(sent):
            await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), *pairs],
        "client": ("192.0.2.7", 1234),
        "server": ("gateway", 80),
        "state": {},
    }
    async with asyncio.timeout(5):
        await app(scope, receive, send)


async def test_a_span_is_by_the_conventions(gateway, spans):
    response = await gateway.ask("POST", "/chat", HELLO)
    span = http_span(spans)
    assert (span.name, span.kind, span.status.status_code) == ("POST /chat", SpanKind.SERVER, StatusCode.UNSET)
    assert span.attributes == {
        "http.request.method": "POST",
        "http.route": "/chat",
        "url.path": "/chat",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
    }
    assert set(span.attributes) <= set(telemetry.HTTP_SERVER.attributes)
    assert f"{span.context.trace_id:032x}-{span.context.span_id:016x}" in response.headers["traceparent"]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/sessions/my-id", "GET /sessions/{session_id}"),
        ("GET", "/sessions/my%2Fid/messages", "GET /sessions/{session_id}/messages"),
        ("GET", "/v1/models/my-id", "GET /v1/models/{model}"),
        ("GET", "/assets/my-id.js", "GET /assets/{name}"),
        ("GET", "/my-id", "GET"),
        ("DELETE", "/chat", "DELETE"),
        ("PROPFIND", "/my-id", "HTTP"),
    ],
)
async def test_a_span_has_the_route_and_never_the_path(gateway, spans, metrics, method, path, name):
    for script in ("GetSession", "ListTurns"):
        gateway.router.script[script] = IonError(Reason.REASON_SESSION_NOT_FOUND)
    gateway.router.script["ListPersonas"] = router_pb2.ListPersonasResponse()
    await gateway.ask(method, path)
    span = http_span(spans)
    assert span.name == name
    assert span.attributes.get("http.route", "") == name.partition(" ")[2]
    (point,) = metrics.points(telemetry.HTTP_DURATION)
    assert point.attributes.get("http.route", "") == name.partition(" ")[2]
    assert "my" not in f"{span.attributes} {point.attributes}"


@pytest.mark.parametrize("body", [HELLO, {"message": "other"}])
async def test_nothing_that_people_write_is_told(gateway, spans, body):
    await gateway.ask("POST", "/chat", body | {"user_id": "somebody", "session_id": "some-session"})
    told = str(http_span(spans).attributes)
    assert not any(secret in told for secret in ("비밀", "other", "somebody", "some-session"))


@pytest.mark.parametrize(
    ("path", "body", "reason", "status", "is_error"),
    [
        ("/chat", HELLO, Reason.REASON_MODEL_REJECTED, 502, True),
        ("/chat", HELLO, Reason.REASON_OVERLOADED, 503, True),
        ("/chat", HELLO, Reason.REASON_MESSAGE_TOO_LONG, 422, False),
        ("/v1/chat/completions", OPENAI, Reason.REASON_MODEL_UNAVAILABLE, 503, True),
        ("/v1/chat/completions", OPENAI, Reason.REASON_PERSONA_NOT_FOUND, 404, False),
    ],
)
async def test_failures_go_by_their_reason_and_only_our_own_are_errors(
    gateway, spans, metrics, caplog, path, body, reason, status, is_error
):
    caplog.set_level("INFO")
    error = IonError(reason)
    gateway.router.script["Chat"] = error
    response = await gateway.ask("POST", path, body)
    span = http_span(spans)
    assert response.status_code == span.attributes["http.response.status_code"] == status
    assert span.attributes.get("error.type") == (error.reason_name if is_error else None)
    assert span.status.is_ok is not is_error
    (point,) = metrics.points(telemetry.HTTP_DURATION)
    assert (point.attributes["http.response.status_code"], point.attributes["http.route"]) == (status, path)
    assert point.attributes.get("error.type") == span.attributes.get("error.type")
    assert [line["reason"] for line in lines(caplog)] == [error.reason_name]


async def test_without_a_reason_a_failure_goes_by_its_status(gateway, caplog):
    caplog.set_level("INFO")
    await gateway.ask("POST", "/chat", [])
    assert [line["reason"] for line in lines(caplog)] == ["422"]


async def test_a_defect_is_an_error(gateway, spans):
    gateway.router.script["Chat"] = "no message of the protocol"
    await gateway.ask("POST", "/chat", HELLO)
    span = http_span(spans)
    assert (span.attributes["error.type"], span.status.status_code) == ("INTERNAL", StatusCode.ERROR)


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/chat", "/chat"),
        ("/chat/", "/chat"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/sessions/my-id", ""),
        ("/my-id", ""),
    ],
)
@pytest.mark.parametrize(
    ("reason", "media_type", "status"),
    [
        (Reason.REASON_RATE_LIMITED, "application/json", 429),
        (Reason.REASON_UNAUTHENTICATED, "application/json", 401),
        (None, "text/plain", 415),
    ],
)
async def test_what_is_refused_at_the_door_has_the_route_that_was_asked(
    gateway, spans, metrics, path, route, reason, media_type, status
):
    app = gateway.app(Refusing(reason) if reason else None)
    response = await gateway.ask("POST", path, HELLO, app=app, **{"Content-Type": media_type})
    assert response.status_code == status
    span = http_span(spans)
    (point,) = metrics.points(telemetry.HTTP_DURATION)
    assert span.name == f"POST {route}".strip()
    assert span.attributes.get("http.route", "") == point.attributes.get("http.route", "") == route
    assert "my" not in f"{span.attributes} {point.attributes}"


async def test_metrics_asked_for_with_a_wrong_key_have_no_line(gateway, caplog):
    caplog.set_level("INFO")
    app = gateway.app(Refusing(Reason.REASON_UNAUTHENTICATED))
    await gateway.ask("GET", "/metrics", app=app)
    await gateway.ask("GET", "/personas", app=app)
    assert [(line["route"], line["reason"]) for line in lines(caplog)] == [("/personas", "UNAUTHENTICATED")]


async def test_a_duration_is_measured_once_with_its_span_as_an_exemplar(gateway, spans, metrics):
    await gateway.ask("POST", "/chat", HELLO)
    (point,) = metrics.points(telemetry.HTTP_DURATION)
    assert point.attributes == {
        "http.request.method": "POST",
        "http.route": "/chat",
        "http.response.status_code": 200,
        "url.scheme": "http",
    }
    assert set(point.attributes) <= set(telemetry.HTTP_DURATION.attributes)
    assert point.count == 1
    (exemplar,) = point.exemplars
    assert exemplar.span_id == http_span(spans).context.span_id


STREAMS = [("/chat", HELLO, 4), ("/v1/chat/completions", OPENAI | {"stream": True}, 5)]


@pytest.mark.parametrize(("path", "body", "events"), STREAMS)
async def test_a_stream_tells_of_its_events_and_its_first_text(gateway, spans, metrics, path, body, events):
    response = await gateway.ask("POST", path, body, **EVENTS)
    assert response.text.count("data: ") == events
    span = http_span(spans)
    assert span.attributes["ion.stream.messages"] == events
    lasted = (span.end_time - span.start_time) / 1e9
    assert 0 < span.attributes["ion.stream.time_to_first_message"] < lasted
    (point,) = metrics.points(telemetry.HTTP_FIRST_EVENT)
    assert (point.attributes, point.count) == ({"http.route": path}, 1)
    assert 0 < point.sum < lasted


@pytest.mark.parametrize(("path", "body", "_"), STREAMS)
async def test_the_call_below_a_whole_stream_ends_well(gateway, spans, path, body, _):
    await gateway.ask("POST", path, body, **EVENTS)
    (call,) = [span for span in spans.get_finished_spans() if span.kind is SpanKind.CLIENT]
    assert (call.attributes["rpc.response.status_code"], "error.type" in call.attributes) == ("OK", False)


async def test_a_whole_answer_has_no_first_text(gateway, metrics):
    await gateway.ask("POST", "/chat", HELLO)
    assert metrics.points(telemetry.HTTP_FIRST_EVENT) == []


@pytest.mark.parametrize(("path", "body", "_"), STREAMS)
async def test_a_stream_that_breaks_off_is_an_error_though_its_status_is_not(gateway, spans, metrics, path, body, _):
    gateway.router.script["ChatStream"] = [ROUTED, TEXT, IonError(Reason.REASON_MODEL_INTERRUPTED)]
    await gateway.ask("POST", path, body, **EVENTS)
    span = http_span(spans)
    assert (span.attributes["error.type"], span.status.status_code) == ("MODEL_INTERRUPTED", StatusCode.ERROR)
    broken = {"http.response.status_code": 200, "error.type": "MODEL_INTERRUPTED"}
    assert metrics.value(telemetry.HTTP_DURATION, broken) == 1


@pytest.mark.parametrize(
    "reason", [Reason.REASON_PROMPT_TOO_LARGE, Reason.REASON_RATE_LIMITED, Reason.REASON_MODEL_NOT_FOUND]
)
@pytest.mark.parametrize(("path", "body", "_"), STREAMS)
async def test_a_stream_that_its_caller_is_to_blame_for_is_no_error(
    gateway, spans, metrics, caplog, path, body, _, reason
):
    caplog.set_level("INFO")
    error = IonError(reason)
    gateway.router.script["ChatStream"] = [ROUTED, TEXT, error]
    await gateway.ask("POST", path, body, **EVENTS)
    span = http_span(spans)
    assert (span.attributes.get("error.type"), span.status.status_code) == (None, StatusCode.UNSET)
    (point,) = metrics.points(telemetry.HTTP_DURATION)
    assert (point.attributes["http.response.status_code"], point.attributes.get("error.type")) == (200, None)
    assert [line["reason"] for line in lines(caplog)] == [error.reason_name]


async def stays_open(_: Any) -> AsyncGenerator[Any, None]:
    for piece in (ROUTED, TEXT, DONE):
        yield piece
    await asyncio.Event().wait()


@pytest.mark.parametrize(("path", "body", "_"), STREAMS)
async def test_a_client_that_leaves_after_the_last_event_has_all(gateway, spans, metrics, monkeypatch, path, body, _):
    monkeypatch.setattr(router_client, "_END_SECONDS", 60)
    gateway.router.script["ChatStream"] = stays_open

    def has_all(sent: list[Any]) -> bool:
        said = b"".join(message.get("body", b"") for message in sent)
        return b"event: done" in said or b"[DONE]" in said

    await leave(gateway.app(), path, body, has_all, **EVENTS)
    span = http_span(spans)
    assert (span.attributes.get("error.type"), span.status.status_code) == (None, StatusCode.UNSET)
    assert metrics.value(telemetry.HTTP_DURATION, {"http.response.status_code": 200}) == 1
    assert "error.type" not in metrics.points(telemetry.HTTP_DURATION)[0].attributes


async def hangs(_: Any) -> AsyncGenerator[Any, None]:
    yield ROUTED
    await asyncio.Event().wait()


@pytest.mark.parametrize(("script", "headers", "status"), [(forever, {}, None), (hangs, EVENTS, 200)])
async def test_a_client_that_leaves_is_no_error(gateway, spans, metrics, script, headers, status):
    gateway.router.script |= {"Chat": script, "ChatStream": script}
    pieces = 2 if status else 0

    def is_time(sent: list[Any]) -> bool:
        return bool(gateway.router.requests) and len(sent) == pieces

    await leave(gateway.app(), "/chat", HELLO, is_time, **headers)
    span = http_span(spans)
    assert span.attributes["error.type"] == "CANCELLED"
    assert span.attributes.get("http.response.status_code") == status
    assert span.status.status_code is StatusCode.UNSET
    (point,) = metrics.points(telemetry.HTTP_DURATION)
    assert (point.attributes["error.type"], point.attributes.get("http.response.status_code")) == ("CANCELLED", status)


async def test_a_stop_that_waits_no_longer_has_interrupted_the_stream(gateway, spans):
    gateway.router.script["ChatStream"] = hangs
    begun = asyncio.Event()

    def never(sent: list[Any]) -> bool:
        if len(sent) == 2:
            begun.set()
        return False

    asking = asyncio.create_task(leave(gateway.app(), "/chat", HELLO, never, **EVENTS))
    await begun.wait()
    asking.cancel()
    await asking
    span = http_span(spans)
    assert (span.attributes["error.type"], span.status.status_code) == ("MODEL_INTERRUPTED", StatusCode.ERROR)


async def test_what_is_under_way_is_counted(gateway, metrics):
    exchange.observe()
    gateway.router.script["ChatStream"] = hangs
    during: list[tuple[float, float]] = []

    def under_way() -> tuple[float, float]:
        active = metrics.value(telemetry.HTTP_ACTIVE, {"http.request.method": "POST", "url.scheme": "http"})
        return active, metrics.value(telemetry.HTTP_STREAMS)

    def has_seen(sent: list[Any]) -> bool:
        if len(sent) == 2:
            during.append(under_way())
        return bool(during)

    await leave(gateway.app(), "/chat", HELLO, has_seen, **EVENTS)
    assert (during, under_way()) == ([(1, 1)], (0, 0))


@pytest.mark.parametrize("headers", [{}, EVENTS])
async def test_an_apology_of_the_gateway_is_counted(gateway, metrics, headers):
    gateway.router.script |= dict.fromkeys(("Chat", "ChatStream"), IonError(Reason.REASON_DEADLINE_EXCEEDED))
    await gateway.ask("POST", "/chat", HELLO, **headers)
    assert metrics.value(telemetry.CHAT_FALLBACKS, {"error.type": "DEADLINE_EXCEEDED"}) == 1


async def test_an_unsampled_request_makes_no_span_and_is_measured(gateway, metrics):
    unsampled = {"traceparent": f"00-{1:032x}-{1:016x}-00"}
    with recorded_spans("parentbased_always_on") as spans:
        await gateway.ask("POST", "/chat", HELLO, **unsampled)
        assert spans.get_finished_spans() == ()
    assert metrics.value(telemetry.HTTP_DURATION) == 1


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """What the lines of requests say, without what differs each time."""
    fields = ("method", "route", "status", "reason", "persona", "cache", "fallback")
    told = [vars(record) for record in caplog.records if record.name == "ion.request"]
    assert all(0 < line["duration_seconds"] < 60 for line in told)
    return [{field: line[field] for field in fields if field in line} for line in told]


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/chat", HELLO, {}),
        ("/chat", HELLO, EVENTS),
        ("/v1/chat/completions", OPENAI, {}),
        ("/v1/chat/completions", OPENAI | {"stream": True}, {}),
    ],
)
async def test_an_exchange_has_one_line(gateway, caplog, path, body, headers):
    caplog.set_level("INFO")
    await gateway.ask("POST", path, body, **headers)
    assert lines(caplog) == [{"method": "POST", "route": path, "status": 200, "persona": "Lua", "cache": "hit"}]


@pytest.mark.parametrize(("headers", "script"), [({}, "Chat"), (EVENTS, "ChatStream")])
async def test_the_line_of_an_apology_says_so(gateway, caplog, headers, script):
    caplog.set_level("INFO")
    gateway.router.script[script] = IonError(Reason.REASON_ROUTER_UNAVAILABLE)
    await gateway.ask("POST", "/chat", HELLO, **headers)
    (line,) = lines(caplog)
    assert (line["persona"], line["cache"], line["fallback"]) == ("Nana", "off", True)


async def test_an_apology_of_the_router_is_told_too(gateway, caplog):
    caplog.set_level("INFO")
    end = router_pb2.ChatDone(fallback=True, routing=router_pb2.Routing(persona="Nana"))
    gateway.router.script |= {
        "Chat": router_pb2.ChatResponse(fallback=True, routing=router_pb2.Routing(persona="Nana")),
        "ChatStream": [ROUTED, TEXT, router_pb2.ChatStreamResponse(done=end)],
    }
    await gateway.ask("POST", "/chat", HELLO)
    await gateway.ask("POST", "/chat", HELLO, **EVENTS)
    assert [(line["persona"], line["fallback"]) for line in lines(caplog)] == [("Nana", True)] * 2


async def test_the_line_of_a_failure_has_its_reason_and_no_path(gateway, caplog):
    caplog.set_level("INFO")
    gateway.router.script["GetSession"] = IonError(Reason.REASON_SESSION_NOT_FOUND)
    await gateway.ask("GET", "/sessions/my-id")
    await gateway.ask("GET", "/my-id")
    assert lines(caplog) == [
        {"method": "GET", "route": "/sessions/{session_id}", "status": 404, "reason": "SESSION_NOT_FOUND"},
        {"method": "GET", "status": 404, "reason": "404"},
    ]


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/health", "/metrics", "/assets/a.js", "/docs/start.js", "/docs/assets/a.css"]
)
async def test_what_machines_and_pages_ask_has_none(gateway, caplog, path):
    caplog.set_level("INFO")
    await gateway.ask("GET", path)
    assert lines(caplog) == []


async def test_lines_can_be_switched_off(gateway, caplog):
    caplog.set_level("INFO")
    await gateway.ask("POST", "/chat", HELLO, app=gateway.app(access_log=False))
    assert lines(caplog) == []
