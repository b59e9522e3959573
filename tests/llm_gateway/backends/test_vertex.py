import asyncio
from contextlib import nullcontext

import grpc
import grpc.aio
import pytest
from google.cloud.aiplatform_v1 import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcAsyncIOTransport

from chassis import telemetry
from chassis.errors import DeadlineExceeded, IonError, to_status
from chassis.observability import tracing
from llm_gateway.backends.google_auth import Authorization
from llm_gateway.backends.vertex import VertexBackend
from llm_gateway.backends.vertex_channels import ConnectionPool, endpoint_of
from llm_gateway.catalogue import Catalogue
from llm_gateway.generation import (
    FinishReason,
    GenerationRequest,
    ModelCredentials,
    ModelNotFound,
    ModelQuota,
    ModelRejected,
    ModelUnavailable,
)
from tests.fake_vertex import UPSTREAM_TEXT, FakeVertex
from tests.llm_gateway.backends.vertex_calls import (
    LOCATION,
    MODEL,
    PROMPT,
    REQUEST,
    RESOURCE,
    ask,
    connect,
    open_stream,
)
from tests.observed import recorded_spans


async def test_a_reply_names_its_text_model_and_location(vertex, backend):
    vertex.answer("Good to see you.")
    reply = await ask(backend)
    assert (reply.text, reply.model, reply.location) == ("Good to see you.", MODEL, LOCATION)
    assert reply.finish_reason is FinishReason.STOP
    assert not reply.offline


@pytest.mark.parametrize("model", [MODEL, "odd model:1&x=ü"])
async def test_metadata_is_what_googles_client_sends(vertex, backend, model):
    await ask(backend, GenerationRequest(model, PROMPT))
    async with grpc.aio.insecure_channel(vertex.endpoint) as channel:
        client = PredictionServiceAsyncClient(transport=PredictionServiceGrpcAsyncIOTransport(channel=channel))
        resource = RESOURCE.replace(MODEL, model)
        await client.generate_content(
            {"model": resource, "contents": [{"role": "user", "parts": [{"text": "x"}]}]}, timeout=5
        )
    ours, theirs = (call.metadata for call in vertex.calls)
    assert ours == theirs
    assert ours["x-goog-request-params"].startswith("model=projects/my-project/locations/us-central1/")
    assert "gapic/" in ours["x-goog-api-client"]


TRACE_KEYS = {"traceparent", "tracestate", "baggage"}


async def test_vertex_is_told_of_the_span_of_a_sampled_call_and_of_nothing_else(vertex, backend):
    with recorded_spans():
        tracing.enter(None, f"00-{'1' * 32}-{'2' * 16}-01", "vendor=state", "user=somebody")
        with tracing.span(telemetry.GEN_AI_CLIENT, "generate_content") as span:
            await ask(backend)
            async for _ in open_stream(backend):
                pass
    assert "vendor" in span.call.tracestate
    for call in vertex.calls:
        assert {key: call.metadata[key] for key in TRACE_KEYS & set(call.metadata)} == {
            "traceparent": span.call.traceparent
        }
    assert len(vertex.calls) == 2


@pytest.mark.parametrize("sampler", [None, "parentbased_always_on", "always_off"])
async def test_vertex_is_told_nothing_of_a_call_that_is_not_sampled(vertex, backend, sampler):
    with recorded_spans(sampler) if sampler else nullcontext():
        tracing.enter(None, f"00-{'1' * 32}-{'2' * 16}-00", "vendor=state", "user=somebody")
        with tracing.span(telemetry.GEN_AI_CLIENT, "generate_content"):
            await ask(backend)
    assert not TRACE_KEYS & set(vertex.calls[0].metadata)


async def test_the_address_of_a_location_is_its_endpoint(vertex, backend):
    assert backend.address(LOCATION) == vertex.endpoint


async def test_the_address_of_a_location_of_google_has_the_port_of_https():
    pools = {"global": ConnectionPool(lambda: None, address=endpoint_of("global"))}
    backend = VertexBackend(
        project="p", model=MODEL, pools=pools, authorization=Authorization(None), catalogue=Catalogue.load()
    )
    assert backend.address("global") == "aiplatform.googleapis.com:443"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, ModelUnavailable),
        (grpc.StatusCode.INTERNAL, ModelUnavailable),
        (grpc.StatusCode.UNKNOWN, ModelUnavailable),
        (grpc.StatusCode.ABORTED, ModelUnavailable),
        (grpc.StatusCode.CANCELLED, ModelUnavailable),
        (grpc.StatusCode.DATA_LOSS, ModelUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ModelQuota),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.NOT_FOUND, ModelNotFound),
        (grpc.StatusCode.INVALID_ARGUMENT, ModelRejected),
        (grpc.StatusCode.FAILED_PRECONDITION, ModelRejected),
        (grpc.StatusCode.OUT_OF_RANGE, ModelRejected),
        (grpc.StatusCode.UNIMPLEMENTED, ModelRejected),
        (grpc.StatusCode.UNAUTHENTICATED, ModelCredentials),
        (grpc.StatusCode.PERMISSION_DENIED, ModelCredentials),
    ],
)
async def test_each_status_becomes_its_domain_error_after_one_attempt(vertex, backend, code, error):
    vertex.fail(code)
    for call in (ask(backend), backend.count_tokens(MODEL, PROMPT, location=LOCATION, timeout_seconds=5.0)):
        with pytest.raises(IonError) as caught:
            await call
        assert type(caught.value) is error
        assert UPSTREAM_TEXT not in str(caught.value)
        assert UPSTREAM_TEXT.encode() not in to_status(caught.value).SerializeToString()
    assert len(vertex.calls) == 2


@pytest.mark.parametrize("code", [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE])
@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({"retry_after_seconds": 1.5}, 1.5),
        ({"retry_after_trailer": "7"}, 7.0),
        ({"retry_after_seconds": 1.5, "retry_after_trailer": "7"}, 1.5),
        ({"retry_after_trailer": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        ({}, None),
    ],
)
async def test_the_wait_that_vertex_asks_for_is_kept(vertex, backend, code, told, seconds):
    vertex.fail(code, **told)
    with pytest.raises((ModelQuota, ModelUnavailable)) as caught:
        await ask(backend)
    assert caught.value.retry_after_seconds == seconds


async def test_unreadable_status_details_do_not_hide_the_failure():
    async def refuse(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
        trailers = (("grpc-status-details-bin", b"\xff\xff\xff"),)
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "", trailing_metadata=trailers)
        return b""

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(refuse)
    service = "google.cloud.aiplatform.v1.PredictionService"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"GenerateContent": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    backend = await connect({LOCATION: f"127.0.0.1:{port}"})
    with pytest.raises(ModelQuota):
        await ask(backend)
    await backend.close()
    await server.stop(None)


async def test_a_call_past_its_time_ends_and_is_ended_at_vertex(vertex, backend):
    await ask(backend)  # connected, so that the time goes to the call
    vertex.hang()
    with pytest.raises(DeadlineExceeded):
        await ask(backend, timeout_seconds=0.5)
    (call,) = await vertex.wait_for_outcome("cancelled")
    # gRPC rounds the time up to whole milliseconds on its way.
    assert 0 < call.time_remaining_seconds < 0.51


async def test_cancelling_a_call_cancels_it_at_vertex(vertex, backend):
    vertex.hang()
    task = asyncio.create_task(ask(backend, timeout_seconds=60.0))
    await vertex.wait_for_calls(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await vertex.wait_for_outcome("cancelled")


async def test_one_cancelled_call_leaves_the_others_alone(vertex, backend):
    vertex.hang()
    tasks = [asyncio.create_task(ask(backend)) for _ in range(3)]
    await vertex.wait_for_calls(3)
    tasks[0].cancel()
    await vertex.wait_for_outcome("cancelled")
    vertex.release()
    assert [reply.location for reply in await asyncio.gather(*tasks[1:])] == [LOCATION] * 2


async def test_each_location_has_its_own_endpoint():
    async with FakeVertex(location="us-west1") as west, FakeVertex(location="europe-west1") as europe:
        backend = await connect({"us-west1": west.endpoint, "europe-west1": europe.endpoint})
        for location in backend.locations:
            assert (await backend.generate(REQUEST, location=location, timeout_seconds=5.0)).location == location
        await backend.close()
        assert (len(west.calls), len(europe.calls)) == (1, 1)


async def test_locations_keep_their_order_and_the_default_model_is_known(backend):
    both = await connect({"b": "127.0.0.1:1", "a": "127.0.0.1:2"})
    assert both.locations == ("b", "a")
    assert both.default_model == MODEL
    await both.close()


async def test_an_unreachable_vertex_is_unavailable_and_found_again(vertex, backend):
    await ask(backend)
    await vertex.stop()
    for _ in range(5):
        with pytest.raises(ModelUnavailable):
            await ask(backend)
    await vertex.start()
    async with asyncio.timeout(10):
        while True:
            try:
                await ask(backend)
                break
            except ModelUnavailable:
                continue


async def test_tokens_are_counted_over_instructions_and_turns(vertex, backend):
    count = await backend.count_tokens(MODEL, PROMPT, location=LOCATION, timeout_seconds=5.0)
    (call,) = vertex.calls
    assert call.method == "CountTokens"
    assert count == 3 + 2 + 4 + 4
    assert call.request.endpoint == call.request.model == RESOURCE
    assert call.metadata["x-goog-request-params"] == f"endpoint={RESOURCE}"
    assert call.request.system_instruction.parts[0].text == "You are Lua."
