"""Mutual TLS between services: who is connected to, who is let in, and who is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from chassis import caller
from chassis.channel import invoke, open_channel
from chassis.deadline import Deadline
from chassis.errors import IonError
from chassis.server import add_port, new_server
from chassis.settings import Bind, load
from chassis.transport import PLAIN, Transport, TransportSettings
from ion.error.v1.reason_pb2 import Reason
from tests.certificates import Authority, Files
from tests.chassis.conftest import SERVICE

METHOD = f"/{SERVICE}/Unary"
CLAIM = (("x-ion-caller", "key:abc;pro"),)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def router(authority: Authority) -> Files:
    return authority.issue("router", "router.ion.internal")


def transport(files: Files, *services: str) -> Transport:
    return Transport.of(
        TransportSettings(
            tls_certificate=files.certificate, tls_key=files.key, tls_ca=files.authority, tls_services=services
        )
    )


@asynccontextmanager
async def serving(with_transport: Transport) -> AsyncIterator[str]:
    """A method that answers whom it is called for; yields where."""

    async def handle(request, context):
        return caller.current().to_header().encode()

    server = new_server(trust=with_transport.trust)
    server.add_registered_method_handlers(SERVICE, {"Unary": grpc.unary_unary_rpc_method_handler(handle)})
    port = add_port(server, Bind("127.0.0.1", 0), "ION_ROUTER_BIND", with_transport)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


async def call(target: str, with_transport: Transport) -> str:
    """Whom the server takes the call to be for."""
    async with open_channel(target, with_transport) as channel:
        answer = await channel.unary_unary(METHOD)(b"", timeout=5, metadata=CLAIM)
    return answer.decode()


async def test_a_service_with_a_known_name_is_believed(authority, router):
    gateway = authority.issue("gateway")
    async with serving(transport(router, "gateway")) as target:
        assert await call(target, transport(gateway)) == "key:abc;pro"


async def test_an_alternative_name_is_as_good(authority, router):
    async with serving(transport(router, "gateway.ion.internal")) as target:
        assert await call(target, transport(authority.issue("gw", "gateway.ion.internal"))) == "key:abc;pro"


async def test_whoever_has_another_name_may_call_for_itself_only(authority, router):
    async with serving(transport(router, "gateway")) as target:
        assert await call(target, transport(authority.issue("robot"))) == ";"


async def test_a_certificate_of_another_authority_is_not_let_in(router, tmp_path: Path):
    stranger = Authority(tmp_path).issue("gateway")
    claimed = Files(stranger.certificate, stranger.key, router.authority)
    async with serving(transport(router, "gateway")) as target:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(target, transport(claimed))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_server_of_another_authority_is_not_called(authority, tmp_path: Path):
    stranger = Authority(tmp_path).issue("router")
    with_ours = Files(stranger.certificate, stranger.key, authority.file)
    async with serving(transport(with_ours)) as target, open_channel(target, transport(stranger)) as channel:
        with pytest.raises(IonError) as caught:
            await invoke(
                channel.unary_unary(METHOD),
                METHOD,
                b"",
                Deadline.after(5),
                unreachable=Reason.REASON_ROUTER_UNAVAILABLE,
            )
        assert caught.value.reason == Reason.REASON_ROUTER_UNAVAILABLE


async def test_plain_text_is_not_let_in(router):
    async with serving(transport(router, "gateway")) as target:
        with pytest.raises(grpc.aio.AioRpcError):
            await call(target, PLAIN)


# Settings.


def line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **env: str) -> str:
    """What the start ends with."""
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit):
        load(TransportSettings)
    (said,) = capsys.readouterr().err.splitlines()
    return said


def test_certificate_key_and_authority_come_together(capsys, monkeypatch, router):
    said = line(capsys, monkeypatch, ION_TLS_CERT=str(router.certificate))
    assert said == "ion: ION_TLS_CERT, ION_TLS_KEY and ION_TLS_CA must be set together or not at all"


def test_files_that_are_not_there(capsys, monkeypatch, router):
    said = line(capsys, monkeypatch, **(router.env | {"ION_TLS_KEY": "/no/such/file"}))
    assert said == "ion: ION_TLS_KEY='/no/such/file': must be a file that can be read"


@pytest.mark.parametrize("variable", ["ION_TLS_CERT", "ION_TLS_KEY", "ION_TLS_CA"])
def test_files_that_are_something_else(capsys, monkeypatch, router, tmp_path, variable):
    file = tmp_path / "file.pem"
    file.write_text("-----BEGIN NONSENSE-----\n")
    said = line(capsys, monkeypatch, **(router.env | {variable: str(file)}))
    assert said.startswith("ion: ION_TLS_C")
    assert str(file) in said


def test_a_key_of_another_certificate(capsys, monkeypatch, authority, router):
    other = authority.issue("other")
    assert "ION_TLS_KEY" in line(capsys, monkeypatch, **(router.env | {"ION_TLS_KEY": str(other.key)}))


def test_a_token_is_never_shown(capsys, monkeypatch):
    said = line(capsys, monkeypatch, ION_SERVICE_TOKEN="tooshort-secret")
    assert said.startswith("ion: ION_SERVICE_TOKEN=(hidden): must ")


def test_what_a_process_shows_does_not_show_itself(router):
    shown = repr(Transport("0123456789abcdef", transport(router).tls))
    assert "0123456789abcdef" not in shown
    assert "PRIVATE KEY" not in shown


def test_what_proves_a_service(router):
    files = {"tls_certificate": router.certificate, "tls_key": router.key, "tls_ca": router.authority}
    assert not TransportSettings().proves_services
    assert not TransportSettings(**files).proves_services
    assert TransportSettings(**files, tls_services=("router",)).proves_services
    assert TransportSettings(service_token="0123456789abcdef").proves_services
