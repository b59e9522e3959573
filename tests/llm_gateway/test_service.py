"""What may be asked over gRPC, and how it is answered: over TCP, with the guard that every service has."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.channel import open_channel
from chassis.errors import InvalidField, IonError, from_rpc
from chassis.server import new_server
from ion.error.v1.reason_pb2 import Reason
from ion.llm.v1 import llm_pb2, llm_pb2_grpc
from llm_gateway.cache import ResponseCache
from llm_gateway.completion import CacheStatus, Completed, Completion
from llm_gateway.generation import (
    FinishReason,
    GenerationRequest,
    ModelBlocked,
    Parameters,
    Prompt,
    Reply,
    Role,
    Turn,
    Usage,
)
from llm_gateway.redis_store import NoStore
from llm_gateway.service import LlmGatewayServicer, read_request, response_of
from tests.llm_gateway.scripted_backend import ScriptedBackend, reply, until

Stub = llm_pb2_grpc.LlmGatewayServiceStub
REQUEST_TIMEOUT_SECONDS = 20.0


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
    completion = Completion(backend, cache, draw=lambda: 0.0)
    servicer = LlmGatewayServicer(completion, offline=True, request_timeout_seconds=REQUEST_TIMEOUT_SECONDS)
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
            model="model-b", prompt=prompt, parameters=parameters, persona="Lua", language="ko", scope="user-1"
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
    )


async def test_what_is_not_set_is_left_to_the_model(stub, backend):
    await stub.Generate(asked())
    assert backend.calls[0].request == GenerationRequest("model-a", Prompt("", (Turn(Role.USER, "Hi"),)), Parameters())


async def test_the_answer_says_how_it_came_about(stub, backend):
    backend.outcomes.append(Reply("Ciao", "model-a-001", "there", FinishReason.MAX_TOKENS, Usage(4, 3, 2, 1), True))
    assert await stub.Generate(asked()) == llm_pb2.GenerateResponse(
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


@pytest.mark.parametrize("status", CacheStatus)
def test_each_cache_status_has_its_name_in_the_contract(status):
    generation = response_of(Completed(reply(), status, 0)).generation
    assert llm_pb2.CacheStatus.Name(generation.cache) == f"CACHE_STATUS_{status.name}"


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


wire_requests = st.builds(
    llm_pb2.GenerateRequest,
    model=st.text(max_size=200),
    prompt=st.builds(
        llm_pb2.Prompt,
        system_instruction=st.text(max_size=5),
        contents=st.lists(
            st.builds(
                llm_pb2.Content, role=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 2), text=st.text(max_size=3)
            ),
            max_size=3,
        ),
    ),
    parameters=st.builds(
        llm_pb2.GenerationParameters,
        temperature=st.none() | st.floats(width=32),
        top_p=st.none() | st.floats(width=32),
        max_output_tokens=st.integers(-(2**31), 2**31 - 1),
        stop_sequences=st.lists(st.text(max_size=70), max_size=6),
        response_json_schema=st.text(alphabet='{}[]":, a1', max_size=9) | st.text(max_size=5),
    ),
    scope=st.text(max_size=300),
)


@given(wire_requests)
def test_any_request_is_read_or_refused_with_a_field(request):
    with suppress(InvalidField):
        read = read_request(request, "model-a")
        assert read.model
        assert read.prompt.turns[-1].role is Role.USER


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
    await until(lambda: backend.cancelled == 1)


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
