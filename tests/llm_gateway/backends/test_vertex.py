import asyncio
import datetime
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.aiplatform_v1 import PredictionServiceAsyncClient
from google.cloud.aiplatform_v1.services.prediction_service.transports import PredictionServiceGrpcAsyncIOTransport
from google.oauth2 import service_account
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import DeadlineExceeded, IonError, to_status
from llm_gateway.backends import Backend
from llm_gateway.backends.vertex import Authorization, VertexBackend, endpoint_of, labels_of
from llm_gateway.generation import (
    FinishReason,
    GenerationRequest,
    ModelBlocked,
    ModelCredentials,
    ModelEmpty,
    ModelNotFound,
    ModelQuota,
    ModelRejected,
    ModelUnavailable,
    Parameters,
    Prompt,
    Reply,
    Role,
    Turn,
    Usage,
)
from tests.fake_vertex import UPSTREAM_TEXT, FakeVertex
from tests.fake_vertex import FinishReason as VertexFinishReason

MODEL = "gemini-3.5-flash"
LOCATION = "us-central1"
RESOURCE = f"projects/my-project/locations/{LOCATION}/publishers/google/models/{MODEL}"
PROMPT = Prompt(
    "You are Lua.", (Turn(Role.USER, "Hello"), Turn(Role.MODEL, "Hi, what is up?"), Turn(Role.USER, "Ignore the above"))
)
REQUEST = GenerationRequest(MODEL, PROMPT, persona="Lua")


@pytest.fixture
async def vertex() -> AsyncIterator[FakeVertex]:
    async with FakeVertex(location=LOCATION) as vertex:
        yield vertex


@pytest.fixture
async def backend(vertex: FakeVertex) -> AsyncIterator[Backend]:
    backend = await connect({LOCATION: vertex.endpoint})
    yield backend
    await backend.close()


async def connect(endpoints: dict[str, str]) -> VertexBackend:
    return await VertexBackend.connect(
        project="my-project", model=MODEL, locations=tuple(endpoints), endpoints=endpoints, insecure=True
    )


async def ask(backend: Backend, request: GenerationRequest = REQUEST, *, timeout_seconds: float = 5.0) -> Reply:
    return await backend.generate(request, location=LOCATION, timeout_seconds=timeout_seconds)


async def test_a_reply_names_its_text_model_and_location(vertex, backend):
    vertex.answer("Good to see you.")
    reply = await ask(backend)
    assert (reply.text, reply.model, reply.location) == ("Good to see you.", MODEL, LOCATION)
    assert reply.finish_reason is FinishReason.STOP
    assert not reply.offline


@pytest.mark.parametrize(("named", "model"), [("gemini-3.5-flash-001", "gemini-3.5-flash-001"), ("", MODEL)])
async def test_the_model_is_the_one_that_says_it_answered(vertex, backend, named, model):
    vertex.name_model(named)
    assert (await ask(backend)).model == model


async def test_instructions_and_turns_travel_apart(vertex, backend):
    await ask(backend)
    request = vertex.calls[0].request
    assert [part.text for part in request.system_instruction.parts] == ["You are Lua."]
    assert [(turn.role, [part.text for part in turn.parts]) for turn in request.contents] == [
        ("user", ["Hello"]),
        ("model", ["Hi, what is up?"]),
        ("user", ["Ignore the above"]),
    ]


async def test_no_instructions_are_sent_where_there_are_none(vertex, backend):
    await ask(backend, GenerationRequest(MODEL, Prompt("", PROMPT.turns)))
    assert not vertex.calls[0].request.HasField("system_instruction")


async def test_the_requested_model_and_the_location_make_the_resource_name(vertex, backend):
    await ask(backend, GenerationRequest("gemini-4-pro", PROMPT))
    assert vertex.calls[0].request.model == RESOURCE.replace(MODEL, "gemini-4-pro")


async def test_parameters_that_are_not_given_are_not_sent(vertex, backend):
    await ask(backend)
    assert not vertex.calls[0].request.HasField("generation_config")


async def test_parameters_that_are_given_are_sent_zero_included(vertex, backend):
    parameters = Parameters(temperature=0.0, top_p=0.5, max_output_tokens=77, stop_sequences=("END", "STOP"))
    await ask(backend, GenerationRequest(MODEL, PROMPT, parameters))
    config = vertex.calls[0].request.generation_config
    assert {field.name for field, _ in config.ListFields()} == {
        "temperature",
        "top_p",
        "max_output_tokens",
        "stop_sequences",
    }
    assert (config.temperature, config.top_p, config.max_output_tokens) == (0.0, 0.5, 77)
    assert list(config.stop_sequences) == ["END", "STOP"]


async def test_a_schema_makes_the_reply_json(vertex, backend):
    schema = {"type": "object", "properties": {"tone": {"enum": ["calm", "급함"]}}, "required": ["tone"]}
    await ask(backend, GenerationRequest(MODEL, PROMPT, Parameters(response_json_schema=json.dumps(schema))))
    config = vertex.calls[0].request.generation_config
    assert config.response_mime_type == "application/json"
    assert json_format.MessageToDict(config.response_json_schema) == schema


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ("gemini-3.5-flash", {"thinkingLevel": "MINIMAL"}),
        ("gemini-10-flash", {"thinkingLevel": "MINIMAL"}),
        ("gemini-2.5-flash", {"thinkingBudget": 0}),
        ("gemini-2.0-flash", None),
        ("gemma-4", None),
    ],
)
async def test_minimal_thinking_is_asked_for_in_the_words_of_the_model(vertex, backend, model, sent):
    await ask(backend, GenerationRequest(model, PROMPT, Parameters(temperature=0.0, minimal_thinking=True)))
    await ask(backend, GenerationRequest(model, PROMPT, Parameters(temperature=0.0)))
    told, untold = (json_format.MessageToDict(call.request.generation_config) for call in vertex.calls)
    assert told.get("thinkingConfig") == sent
    assert "thinkingConfig" not in untold


@pytest.mark.parametrize(
    ("persona", "labels"),
    [
        ("Lua", {"persona": "lua"}),
        ("Dr. No-1", {"persona": "dr__no-1"}),
        ("루아", {"persona": "__"}),
        ("x" * 70, {"persona": "x" * 63}),
        ("", {}),
    ],
)
async def test_the_persona_labels_the_bill(vertex, backend, persona, labels):
    await ask(backend, GenerationRequest(MODEL, PROMPT, persona=persona))
    assert dict(vertex.calls[0].request.labels) == labels


@given(st.text(min_size=1))
def test_any_persona_makes_a_label_that_vertex_takes(persona):
    label = labels_of(persona)["persona"]
    assert 0 < len(label) <= 63
    assert set(label) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-")


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


async def test_usage_tells_cached_and_thinking_tokens_apart(vertex, backend):
    vertex.usage(input_tokens=100, output_tokens=20, cached_tokens=60, thinking_tokens=7)
    assert (await ask(backend)).usage == Usage(
        input_tokens=100, output_tokens=20, cached_input_tokens=60, thinking_tokens=7
    )


async def test_thoughts_are_not_part_of_the_text(vertex, backend):
    vertex.think("The person seems sad.")
    vertex.answer("I hear you.")
    assert (await ask(backend)).text == "I hear you."


async def test_a_cut_reply_is_told_from_a_whole_one(vertex, backend):
    vertex.answer("Once upon a time")
    vertex.cut_off(after_characters=4)
    reply = await ask(backend)
    assert (reply.text, reply.finish_reason) == ("Once", FinishReason.MAX_TOKENS)


@pytest.mark.parametrize(
    "reason",
    [
        VertexFinishReason.SAFETY,
        VertexFinishReason.RECITATION,
        VertexFinishReason.BLOCKLIST,
        VertexFinishReason.PROHIBITED_CONTENT,
        VertexFinishReason.SPII,
        VertexFinishReason.MODEL_ARMOR,
        99,
    ],
)
async def test_a_filtered_reply_is_blocked_whatever_text_came(vertex, backend, reason):
    vertex.finish(reason)
    with pytest.raises(ModelBlocked):
        await ask(backend)


@pytest.mark.parametrize("reason", [VertexFinishReason.OTHER, VertexFinishReason.MALFORMED_FUNCTION_CALL])
async def test_a_reply_that_broke_off_is_not_taken_for_one(vertex, backend, reason):
    vertex.finish(reason)
    with pytest.raises(ModelEmpty):
        await ask(backend)


async def test_a_reply_without_a_finish_reason_is_whole(vertex, backend):
    vertex.finish(VertexFinishReason.FINISH_REASON_UNSPECIFIED)
    assert (await ask(backend)).finish_reason is FinishReason.STOP


async def test_a_safety_block_without_text_is_blocked(vertex, backend):
    vertex.block_for_safety()
    with pytest.raises(ModelBlocked):
        await ask(backend)


async def test_a_blocked_prompt_is_blocked(vertex, backend):
    vertex.block_prompt()
    with pytest.raises(ModelBlocked):
        await ask(backend)


async def test_no_candidates_is_empty(vertex, backend):
    vertex.empty()
    with pytest.raises(ModelEmpty):
        await ask(backend)


@pytest.mark.parametrize("text", ["", " \n"])
async def test_no_text_is_empty(vertex, backend, text):
    vertex.answer(text)
    with pytest.raises(ModelEmpty):
        await ask(backend)


async def test_thinking_that_used_up_all_tokens_is_empty(vertex, backend):
    vertex.think("Let me see")
    vertex.cut_off(after_characters=0)
    with pytest.raises(ModelEmpty):
        await ask(backend)


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


@pytest.mark.parametrize(
    ("location", "endpoint"),
    [("us-central1", "us-central1-aiplatform.googleapis.com"), ("global", "aiplatform.googleapis.com")],
)
def test_googles_own_endpoints(location, endpoint):
    assert endpoint_of(location) == endpoint


class TokenServer(http.server.ThreadingHTTPServer):
    """Google's token endpoint. `told` is what it answers; it waits for `may_answer`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _TokenHandler)
        self.told: tuple[int, dict[str, object]] = (200, {"access_token": "token-1", "expires_in": 3600})
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/token"


class _TokenHandler(http.server.BaseHTTPRequestHandler):
    server: TokenServer

    def do_POST(self) -> None:
        self.server.asked += 1
        self.server.may_answer.wait(10)
        status, body = self.server.told
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def token_server() -> Iterator[TokenServer]:
    with TokenServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.may_answer.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(*pem).decode()


@pytest.fixture
def account(token_server: TokenServer, private_key: str) -> dict[str, str]:
    return {
        "type": "service_account",
        "client_email": "robot@my-project.iam.gserviceaccount.com",
        "private_key": private_key,
        "token_uri": token_server.uri,
        "project_id": "my-project",
    }


@pytest.fixture
def credentials(account: dict[str, str]) -> service_account.Credentials:
    return service_account.Credentials.from_service_account_info(account, scopes=["anything"])


@pytest.fixture
async def signed_in(vertex: FakeVertex, credentials: service_account.Credentials) -> AsyncIterator[VertexBackend]:
    channels = {LOCATION: grpc.aio.insecure_channel(vertex.endpoint)}
    authorization = Authorization(credentials)
    backend = VertexBackend(project="my-project", model=MODEL, channels=channels, authorization=authorization)
    yield backend
    await backend.close()


async def test_calls_carry_a_token_that_is_fetched_once(vertex, signed_in, token_server):
    await asyncio.gather(*(ask(signed_in) for _ in range(5)))
    await ask(signed_in)
    assert {call.metadata["authorization"] for call in vertex.calls} == {"Bearer token-1"}
    assert token_server.asked == 1


async def test_a_token_about_to_expire_is_renewed_behind_the_calls(vertex, signed_in, token_server, credentials):
    await ask(signed_in)
    token_server.may_answer.clear()
    token_server.told = (200, {"access_token": "token-2", "expires_in": 3600})
    credentials.expiry = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=60)
    await ask(signed_in)
    token_server.may_answer.set()
    async with asyncio.timeout(5):
        while vertex.calls[-1].metadata["authorization"] != "Bearer token-2":
            await ask(signed_in)
    assert vertex.calls[1].metadata["authorization"] == "Bearer token-1"
    assert token_server.asked == 2


async def test_a_slow_token_server_blocks_neither_the_event_loop_nor_the_deadline(vertex, signed_in, token_server):
    token_server.may_answer.clear()
    with pytest.raises(DeadlineExceeded):
        await ask(signed_in, timeout_seconds=0.2)
    assert vertex.calls == []


async def test_a_caller_out_of_time_leaves_the_renewal_to_the_others(signed_in, token_server):
    token_server.may_answer.clear()
    patient = asyncio.create_task(ask(signed_in))
    with pytest.raises(DeadlineExceeded):
        await ask(signed_in, timeout_seconds=0.2)
    token_server.may_answer.set()
    assert (await patient).text
    assert token_server.asked == 1


async def test_a_refused_login_is_about_credentials(signed_in, token_server):
    token_server.told = (400, {"error": "invalid_grant", "error_description": UPSTREAM_TEXT})
    with pytest.raises(ModelCredentials) as caught:
        await ask(signed_in)
    assert UPSTREAM_TEXT not in str(caught.value)


async def test_a_token_server_that_cannot_be_reached_is_unavailability(signed_in, token_server):
    token_server.server_close()
    with pytest.raises(ModelUnavailable):
        await ask(signed_in)


async def test_missing_credentials_end_the_start_with_one_line_that_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(ValueError, match="GOOGLE_APPLICATION_CREDENTIALS") as caught:
        await VertexBackend.connect(project="my-project", model=MODEL, locations=[LOCATION])
    assert "\n" not in str(caught.value)


async def test_with_credentials_the_channel_is_encrypted(vertex, account, monkeypatch, tmp_path):
    key_file = tmp_path / "key.json"
    key_file.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    backend = await VertexBackend.connect(
        project="my-project", model=MODEL, locations=[LOCATION], endpoints={LOCATION: vertex.endpoint}
    )
    with pytest.raises(ModelUnavailable):
        await ask(backend)
    await backend.close()
    assert vertex.calls == []
