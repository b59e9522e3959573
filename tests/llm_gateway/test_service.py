"""What may be asked over gRPC, and how it is answered: over TCP, with the guard that every service has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from datetime import date

import grpc
import grpc.aio
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from chassis import telemetry
from chassis.channel import open_channel
from chassis.errors import IonError, from_rpc
from chassis.server import new_server
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from llm_gateway.admission import Admission
from llm_gateway.cache import ResponseCache
from llm_gateway.catalogue import Catalogue
from llm_gateway.completion import Completion
from llm_gateway.generation import (
    CacheControl,
    FinishReason,
    GenerationRequest,
    ModelBlocked,
    ModelUnavailable,
    Parameters,
    Prompt,
    Reply,
    Role,
    Turn,
    Usage,
)
from llm_gateway.locations import Locations
from llm_gateway.means import Means
from llm_gateway.model_calls import ModelCalls
from llm_gateway.redis_store import NoStore
from llm_gateway.service import LlmGatewayServicer
from llm_gateway.spending import Ledger
from tests.llm_gateway.scripted_backend import ScriptedBackend, reply, until
from tests.observed import recorded_spans

Stub = llm_pb2_grpc.LlmGatewayServiceStub
REQUEST_TIMEOUT_SECONDS = 20.0
CATALOGUE = Catalogue(
    {
        "facts": {"date": date(2026, 11, 1), "sources": ["a test"]},
        "prices": {"date": date(2026, 11, 1), "sources": ["a test"]},
        "models": {
            "model-priced": {"prices": [{"input": 1.0, "output": 10.0, "cached_input": 0.1}]},
            "model-gone": {"retires": date(2020, 1, 2), "replacement": "model-a"},
        },
    }
)


def asked(text: str = "Hi", **fields: object) -> llm_pb2.GenerateRequest:
    return llm_pb2.GenerateRequest(prompt=prompt_of(text), **fields)


def prompt_of(*texts: str, system_instruction: str = "") -> llm_pb2.Prompt:
    contents = [llm_pb2.Content(role=llm_pb2.ROLE_USER, text=text) for text in texts]
    return llm_pb2.Prompt(system_instruction=system_instruction, contents=contents)


@pytest.fixture
def backend() -> ScriptedBackend:
    return ScriptedBackend()


@pytest.fixture
async def stub(backend: ScriptedBackend) -> AsyncIterator[Stub]:
    cache = ResponseCache(NoStore(), ttl_seconds=60, max_entries=100)
    means = Means(backend, Locations(backend.locations), ledger=Ledger(CATALOGUE.cost_usd))
    completion = Completion(ModelCalls(means), cache, Admission(100, 100), catalogue=CATALOGUE)
    servicer = LlmGatewayServicer(completion, CATALOGUE, offline=True, request_timeout_seconds=REQUEST_TIMEOUT_SECONDS)
    server = new_server()
    llm_pb2_grpc.add_LlmGatewayServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield Stub(channel)
    await server.stop(None)


async def failure_of(call: grpc.aio.UnaryUnaryCall) -> IonError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return from_rpc(raised.value, unreachable=Reason.REASON_LLM_GATEWAY_UNAVAILABLE)


async def test_everything_asked_reaches_the_backend(stub, backend):
    prompt = llm_pb2.Prompt(
        system_instruction="You are Lua.",
        contents=[
            llm_pb2.Content(role=llm_pb2.ROLE_USER, text="안녕"),
            llm_pb2.Content(role=llm_pb2.ROLE_MODEL, text="Hi!"),
            llm_pb2.Content(text="unspecified"),
        ],
    )
    parameters = llm_pb2.GenerationParameters(
        temperature=0,
        top_p=0.5,
        max_output_tokens=7,
        stop_sequences=["END"],
        response_json_schema='{"type": "object"}',
        minimal_thinking=True,
    )
    await stub.Generate(
        llm_pb2.GenerateRequest(
            model="model-b",
            prompt=prompt,
            parameters=parameters,
            persona="Lua",
            language="ko",
            scope="user-1",
            cache_control=llm_pb2.CacheControl(no_store=True, max_age_seconds=9),
            no_hedge=True,
            max_input_tokens=5000,
        )
    )
    turns = (Turn(Role.USER, "안녕"), Turn(Role.MODEL, "Hi!"), Turn(Role.USER, "unspecified"))
    assert backend.calls[0].request == GenerationRequest(
        "model-b",
        Prompt("You are Lua.", turns),
        Parameters(0.0, 0.5, 7, ("END",), '{"type": "object"}', True),
        "Lua",
        "ko",
        "user-1",
        CacheControl(no_store=True, max_age_seconds=9),
        may_hedge=False,
        max_input_tokens=5000,
    )


async def test_what_is_not_set_is_left_to_the_model(stub, backend):
    await stub.Generate(asked())
    assert backend.calls[0].request == GenerationRequest("model-a", Prompt("", (Turn(Role.USER, "Hi"),)), Parameters())


async def test_the_answer_says_how_it_came_about(stub, backend):
    backend.outcomes.append(Reply("Ciao", "model-a-001", "there", FinishReason.MAX_TOKENS, Usage(4, 3, 2, 1), True))
    answer = await stub.Generate(asked())
    assert answer.generation.time_to_first_token_micros > 0
    answer.generation.time_to_first_token_micros = answer.generation.queued_micros = 0
    assert answer == llm_pb2.GenerateResponse(
        text="Ciao",
        generation=llm_pb2.Generation(
            model="model-a-001",
            location="there",
            cache=llm_pb2.CACHE_STATUS_MISS,
            finish_reason=llm_pb2.FINISH_REASON_MAX_TOKENS,
            usage=llm_pb2.Usage(input_tokens=4, output_tokens=3, cached_input_tokens=2, thinking_tokens=1),
            attempts=1,
            offline=True,
        ),
    )


async def test_asked_again_it_is_a_hit_of_no_attempts(stub):
    await stub.Generate(asked())
    again = (await stub.Generate(asked())).generation
    assert (again.cache, again.attempts, again.usage.output_tokens) == (llm_pb2.CACHE_STATUS_HIT, 0, 7)


MANY = "x" * 129
INVALID = {
    "no prompt": (llm_pb2.GenerateRequest(), "prompt.contents"),
    "1001 contents": (llm_pb2.GenerateRequest(prompt=prompt_of(*["a"] * 1001)), "prompt.contents"),
    "empty text": (llm_pb2.GenerateRequest(prompt=prompt_of("a", "")), "prompt.contents.1.text"),
    "unknown role": (
        llm_pb2.GenerateRequest(
            prompt=llm_pb2.Prompt(contents=[llm_pb2.Content(role=9, text="a"), llm_pb2.Content(text="b")])
        ),
        "prompt.contents.0.role",
    ),
    "last by the model": (
        llm_pb2.GenerateRequest(prompt=llm_pb2.Prompt(contents=[llm_pb2.Content(role=2, text="a")])),
        "prompt.contents.0.role",
    ),
    "model": (asked(model=MANY), "model"),
    "persona": (asked(persona=MANY), "persona"),
    "language": (asked(language=MANY), "language"),
    "scope": (asked(scope="x" * 257), "scope"),
    "input tokens": (asked(max_input_tokens=-1), "max_input_tokens"),
    "age": (asked(cache_control=llm_pb2.CacheControl(max_age_seconds=-1)), "cache_control.max_age_seconds"),
}
PARAMETERS = [
    ("temperature", -0.1),
    ("temperature", 2.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", math.nan),
    ("max_output_tokens", -1),
    ("max_output_tokens", 65537),
    ("stop_sequences", ["a"] * 6),
    ("stop_sequences", [""]),
    ("stop_sequences", ["x" * 65]),
    ("response_json_schema", "free text"),
    ("response_json_schema", "[]"),
    ("response_json_schema", '{"type": "object"'),
    ("response_json_schema", '{"a":' * 200 + "1" + "}" * 200),
    ("response_json_schema", "[" * 8000),
    ("response_json_schema", '{"a": "' + "x" * 8184 + '"}'),
]
INVALID |= {
    f"{name} {value}"[:60]: (asked(parameters=llm_pb2.GenerationParameters(**{name: value})), f"parameters.{name}")
    for name, value in PARAMETERS
}


@pytest.mark.parametrize(("request_", "field"), INVALID.values(), ids=INVALID.keys())
async def test_a_field_out_of_its_bounds_is_named(request_, field, stub, backend):
    error = await failure_of(stub.Generate(request_))
    assert (error.reason_name, [violation.field for violation in error.violations]) == ("INVALID_FIELD", [field])
    assert backend.calls == []


@pytest.mark.parametrize(
    "request_",
    [
        llm_pb2.GenerateRequest(prompt=prompt_of(*["a"] * 1000)),
        asked(" "),
        asked(model="x" * 128, persona="x" * 128, scope="각" * 256),
        asked(parameters=llm_pb2.GenerationParameters(temperature=2, top_p=1, max_output_tokens=65536)),
        asked(parameters=llm_pb2.GenerationParameters(stop_sequences=["x" * 64] * 5)),
        asked(parameters=llm_pb2.GenerationParameters(response_json_schema='{"a": "' + "x" * 8183 + '"}')),
    ],
)
async def test_bounds_themselves_are_allowed(request_, stub):
    assert (await stub.Generate(request_)).text


async def test_a_failure_of_the_model_keeps_its_reason(stub, backend):
    backend.outcomes.append(ModelBlocked())
    assert (await failure_of(stub.Generate(asked()))).reason_name == "MODEL_BLOCKED"


async def test_the_callers_deadline_less_a_margin_bounds_the_model(stub, backend):
    await stub.Generate(asked("a"), timeout=5)
    await stub.Generate(asked("b"))
    assert 4 < backend.calls[0].timeout_seconds < 4.95
    assert REQUEST_TIMEOUT_SECONDS - 2 < backend.calls[1].timeout_seconds < REQUEST_TIMEOUT_SECONDS - 0.05


async def test_a_deadline_that_passes_is_said_with_its_reason(stub, backend):
    backend.hold()
    error = await failure_of(stub.Generate(asked(), timeout=0.5))
    assert error.reason_name == "DEADLINE_EXCEEDED"


async def test_a_caller_that_cancels_cancels_the_model_call(stub, backend):
    backend.hold()
    call = stub.Generate(asked())
    await until(lambda: bool(backend.calls))
    call.cancel()
    await until(lambda: backend.cancelled == ["here"])


def streamed(text: str = "Hi", **fields: object) -> llm_pb2.StreamGenerateRequest:
    return llm_pb2.StreamGenerateRequest(prompt=prompt_of(text), **fields)


async def test_a_stream_brings_text_as_it_comes_and_ends_with_how_it_came_about(stub, backend):
    backend.outcomes.append(reply("Hello you there"))
    backend.rest.hold()
    events = aiter(stub.StreamGenerate(streamed()))
    assert (await anext(events)).text == "Hello "  # while the model still writes
    backend.rest.release()
    rest = [event async for event in events]
    assert "".join(event.text for event in rest) == "you there"
    assert [event.WhichOneof("event") for event in rest[-2:]] == ["text", "generation"]
    generation = rest[-1].generation
    assert (generation.complete, generation.usage.output_tokens, generation.cache) == (
        True,
        7,
        llm_pb2.CACHE_STATUS_MISS,
    )


async def test_a_stream_of_a_stored_reply_is_a_stream(stub, backend):
    backend.outcomes.append(reply("word " * 200))
    await stub.Generate(asked())
    events = [event async for event in stub.StreamGenerate(streamed())]
    texts = [event.text for event in events if event.WhichOneof("event") == "text"]
    assert len(texts) > 2
    assert "".join(texts) == "word " * 200
    assert events[-1].generation.cache == llm_pb2.CACHE_STATUS_HIT


async def test_a_cut_reply_is_told_from_a_complete_one(stub, backend):
    backend.outcomes.append(reply("Hello you", FinishReason.MAX_TOKENS))
    *_, last = [event async for event in stub.StreamGenerate(streamed())]
    assert not last.generation.complete
    assert last.generation.finish_reason == llm_pb2.FINISH_REASON_MAX_TOKENS


async def test_a_stream_that_breaks_off_ends_with_an_error(stub, backend):
    backend.fail_after_first_piece = True
    backend.outcomes.append(ModelUnavailable())
    call = stub.StreamGenerate(streamed())
    assert (await call.read()).text == "Broken "
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert from_rpc(raised.value, unreachable=Reason.REASON_INTERNAL).reason_name == "MODEL_INTERRUPTED"
    assert len(backend.calls) == 1


async def test_a_stream_that_is_cancelled_cancels_the_model_call(stub, backend):
    backend.rest.hold()
    backend.outcomes.append(reply("Hello you"))
    call = stub.StreamGenerate(streamed())
    await call.read()
    call.cancel()
    await until(lambda: backend.cancelled == ["here"])


async def test_a_field_out_of_its_bounds_ends_a_stream_before_it_begins(stub, backend):
    call = stub.StreamGenerate(llm_pb2.StreamGenerateRequest())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call.read()
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert backend.calls == []


async def test_what_a_reply_cost_is_told_and_summed_up(stub, backend):
    usage = Usage(1_000_000, 100_000, 500_000, 100_000)
    backend.outcomes.append(Reply("Ciao", "model-priced", "there", FinishReason.STOP, usage))
    generation = (await stub.Generate(asked(model="model-priced", persona="Lua"))).generation
    assert generation.estimated_cost_usd == pytest.approx(0.5 + 0.05 + 2.0)
    (entry,) = (await stub.GetStatistics(llm_pb2.GetStatisticsRequest())).usage
    assert (entry.persona, entry.model, entry.replies, entry.usage.output_tokens) == ("Lua", "model-priced", 1, 100_000)
    assert entry.estimated_cost_usd == pytest.approx(2.55)


async def test_without_a_price_there_is_no_cost(stub):
    assert not (await stub.Generate(asked())).generation.HasField("estimated_cost_usd")


async def test_a_retired_model_is_refused_and_its_replacement_named(stub, backend):
    error = await failure_of(stub.Generate(asked(model="model-gone")))
    assert error.reason_name == "MODEL_NOT_FOUND"
    assert "model-a" in error.message
    assert backend.calls == []


async def test_what_is_invalidated_is_made_anew(stub, backend):
    await stub.Generate(asked(persona="Lua"))
    await stub.Generate(asked(persona="Elro"))
    answer = await stub.InvalidateCache(llm_pb2.InvalidateCacheRequest(persona="lua"))
    assert not answer.shared  # there is no Redis
    statuses = [(await stub.Generate(asked(persona=name))).generation.cache for name in ("Lua", "Elro")]
    assert statuses == [llm_pb2.CACHE_STATUS_MISS, llm_pb2.CACHE_STATUS_HIT]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (llm_pb2.InvalidateCacheRequest(), "persona"),
        (llm_pb2.InvalidateCacheRequest(persona=MANY), "persona"),
        (llm_pb2.InvalidateCacheRequest(model=MANY), "model"),
        (llm_pb2.InvalidateCacheRequest(scope="x" * 257), "scope"),
    ],
)
async def test_an_invalidation_out_of_bounds_is_refused(request_, field, stub):
    error = await failure_of(stub.InvalidateCache(request_))
    assert [violation.field for violation in error.violations] == [field]


async def test_the_scope_shared_by_all_can_be_invalidated(stub):
    await stub.Generate(asked())
    await stub.InvalidateCache(llm_pb2.InvalidateCacheRequest(scope=""))
    assert (await stub.Generate(asked())).generation.cache == llm_pb2.CACHE_STATUS_MISS


async def test_fifty_callers_share_one_model_call(stub, backend):
    backend.hold()
    calls = [asyncio.ensure_future(stub.Generate(asked())) for _ in range(50)]
    await until(lambda: bool(backend.calls))
    backend.release()
    responses = await asyncio.gather(*calls)
    assert len(backend.calls) == 1
    assert {response.text for response in responses} == {"Hello!"}


async def test_a_batch_answers_in_order_and_each_fails_alone(stub, backend):
    backend.outcomes.extend([reply("one"), ModelBlocked()])
    batch = llm_pb2.BatchGenerateRequest(requests=[asked("a"), asked(scope="x" * 257), asked("b")], max_concurrency=1)
    results = (await stub.BatchGenerate(batch)).results
    assert results[0].response.text == "one"
    assert results[1].failure.reason == Reason.REASON_INVALID_FIELD
    assert results[1].failure.message.startswith("scope:")
    assert results[2].failure.reason == Reason.REASON_MODEL_BLOCKED


@pytest.mark.parametrize(("given_", "used"), [(0, 8), (3, 3), (16, 16)])
async def test_a_batch_makes_as_many_calls_at_a_time_as_asked(given_, used, stub, backend):
    backend.hold()
    batch = llm_pb2.BatchGenerateRequest(requests=[asked(str(n)) for n in range(20)], max_concurrency=given_)
    call = asyncio.ensure_future(stub.BatchGenerate(batch))
    await until(lambda: len(backend.calls) == used)
    backend.release()
    await call
    assert backend.most_at_once == used


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        (llm_pb2.BatchGenerateRequest(), "requests"),
        (llm_pb2.BatchGenerateRequest(requests=[asked()] * 101), "requests"),
        (llm_pb2.BatchGenerateRequest(requests=[asked()], max_concurrency=-1), "max_concurrency"),
        (llm_pb2.BatchGenerateRequest(requests=[asked()], max_concurrency=17), "max_concurrency"),
    ],
)
async def test_a_batch_out_of_bounds_is_refused_whole(batch, field, stub, backend):
    error = await failure_of(stub.BatchGenerate(batch))
    assert [violation.field for violation in error.violations] == [field]
    assert backend.calls == []


async def test_tokens_are_counted_for_the_model_asked_or_the_default_one(stub, backend):
    for model in ("", "model-b"):
        response = await stub.CountTokens(llm_pb2.CountTokensRequest(model=model, prompt=prompt_of("Hi")))
        assert response == llm_pb2.CountTokensResponse(total_tokens=42, offline=True)
    assert [call.request[0] for call in backend.calls] == ["model-a", "model-b"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (llm_pb2.CountTokensRequest(), "prompt.contents"),
        (llm_pb2.CountTokensRequest(model=MANY, prompt=prompt_of("Hi")), "model"),
    ],
)
async def test_a_count_out_of_bounds_is_refused(request_, field, stub):
    error = await failure_of(stub.CountTokens(request_))
    assert [violation.field for violation in error.violations] == [field]


# Traces


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded_spans() as spans:
        yield spans


def told_by(spans: InMemorySpanExporter, method: str = "Generate") -> list[ReadableSpan]:
    """The spans of the service, in the order of their ends."""
    return [
        span
        for span in spans.get_finished_spans()
        if span.kind is SpanKind.SERVER and span.name == f"ion.llm.v1.LlmGatewayService/{method}"
    ]


def of_attempts(spans: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if telemetry.GEN_AI_OPERATION in span.attributes]


def how(span: ReadableSpan) -> dict[str, object]:
    keys = (telemetry.CACHE_STATUS, telemetry.CACHE_TIER, telemetry.ATTEMPTS, telemetry.HEDGES)
    return {key: span.attributes[key] for key in keys}


async def test_the_span_of_a_call_says_how_its_reply_came_about(spans, stub):
    for _ in range(2):
        await stub.Generate(asked(model="model-b"))
    await until(lambda: len(told_by(spans)) == 2)
    (attempt,), (made, hit) = of_attempts(spans), told_by(spans)
    assert how(made) == {
        "ion.cache.status": "miss",
        "ion.cache.tier": "none",
        "ion.attempts": 1,
        "ion.hedges": 0,
    }
    assert made.attributes[telemetry.GEN_AI_REQUEST_MODEL] == "model-b"
    assert 0 <= made.attributes[telemetry.QUEUED] < 10
    assert telemetry.CACHE_AGE not in made.attributes
    assert attempt.parent.span_id == made.context.span_id
    assert how(hit) == {
        "ion.cache.status": "hit",
        "ion.cache.tier": "near",
        "ion.attempts": 0,
        "ion.hedges": 0,
    }
    assert 0 < hit.attributes[telemetry.CACHE_AGE] < 10


async def test_a_hit_is_linked_to_the_attempt_that_made_its_reply(spans, stub):
    for _ in range(2):
        await stub.Generate(asked())
    async for _ in stub.StreamGenerate(llm_pb2.StreamGenerateRequest(prompt=prompt_of("Hi"))):
        pass
    await until(lambda: len(told_by(spans, "StreamGenerate")) == 1)
    (attempt,), (made, hit), (streamed,) = of_attempts(spans), told_by(spans), told_by(spans, "StreamGenerate")
    assert not made.links
    for span in (hit, streamed):
        (link,) = span.links
        assert (link.context.trace_id, link.context.span_id) == (attempt.context.trace_id, attempt.context.span_id)
        assert span.context.trace_id != attempt.context.trace_id
    assert streamed.attributes[telemetry.CACHE_STATUS] == "hit"


async def test_who_joins_a_call_is_linked_to_its_attempt(spans, stub, backend):
    backend.hold()
    leading = stub.Generate(asked())
    await until(lambda: len(backend.calls) == 1)
    joining = [stub.Generate(asked()) for _ in range(2)]
    statistics = llm_pb2.GetStatisticsRequest()
    async with asyncio.timeout(5):
        while (await stub.GetStatistics(statistics)).cache.coalesced < 2:
            await asyncio.sleep(0.002)
    backend.release()
    await asyncio.gather(leading, *joining)
    await until(lambda: len(told_by(spans)) == 3)
    (attempt,) = of_attempts(spans)
    joined = [span for span in told_by(spans) if span.attributes[telemetry.CACHE_TIER] == "flight"]
    assert [span.attributes[telemetry.CACHE_STATUS] for span in joined] == ["coalesced", "coalesced"]
    assert [link.context.span_id for span in joined for link in span.links] == [attempt.context.span_id] * 2
    (led,) = [span for span in told_by(spans) if span not in joined]
    assert (led.context.span_id, led.links) == (attempt.parent.span_id, ())


async def test_a_stream_says_how_its_reply_came_about(spans, stub):
    async for _ in stub.StreamGenerate(llm_pb2.StreamGenerateRequest(prompt=prompt_of("Hi"), model="model-b")):
        pass
    await until(lambda: len(told_by(spans, "StreamGenerate")) == 1)
    (streamed,), (attempt,) = told_by(spans, "StreamGenerate"), of_attempts(spans)
    assert how(streamed)[telemetry.CACHE_STATUS] == "miss"
    assert streamed.attributes[telemetry.GEN_AI_REQUEST_MODEL] == "model-b"
    assert attempt.parent.span_id == streamed.context.span_id
    assert attempt.end_time <= streamed.end_time
