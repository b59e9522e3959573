import asyncio
import datetime
import http.server
import json
import threading
from collections.abc import AsyncIterator, Iterator

import grpc.aio
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.oauth2 import service_account

from chassis.errors import DeadlineExceeded
from llm_gateway.backends.google_auth import Authorization
from llm_gateway.backends.vertex import VertexBackend
from llm_gateway.backends.vertex_channels import ConnectionPool
from llm_gateway.catalogue import Catalogue
from llm_gateway.generation import ModelCredentials, ModelUnavailable
from tests.fake_vertex import UPSTREAM_TEXT, FakeVertex
from tests.llm_gateway.backends.vertex_calls import LOCATION, MODEL, ask, open_stream


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
    pools = {LOCATION: ConnectionPool(lambda: grpc.aio.insecure_channel(vertex.endpoint))}
    backend = VertexBackend(
        project="my-project",
        model=MODEL,
        pools=pools,
        authorization=Authorization(credentials),
        catalogue=Catalogue.load(),
    )
    yield backend
    await backend.close()


async def test_calls_carry_a_token_that_is_fetched_once(vertex, signed_in, token_server):
    await asyncio.gather(*(ask(signed_in) for _ in range(5)))
    await ask(signed_in)
    await anext(open_stream(signed_in))
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
