"""From a URL to a client: what is taken, what is refused, what is loaded, and TLS."""

from __future__ import annotations

import ssl
import subprocess
import sys

import pytest

import ion_client
from ion_client import Tls
from ion_client._connect import Target, target_of
from tests.certificates import Authority
from tests.stack.harness import ROOT


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("grpc://router:50052", Target(True, "router:50052", None)),
        ("grpc://127.0.0.1", Target(True, "127.0.0.1:50051", None)),
        ("grpc://[::1]/", Target(True, "[::1]:50051", None)),
        ("grpcs://ion.example", Target(True, "ion.example:443", Tls())),
        ("http://127.0.0.1:8080", Target(False, "http://127.0.0.1:8080", None)),
        ("https://ion.example/chat-service/", Target(False, "https://ion.example/chat-service", Tls())),
    ],
)
def test_a_url_says_where_and_how(url, target):
    assert target_of(url, None) == target


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:50051", "ftp://ion", "grpc://", "http://", "grpc://ion/path", "http://ion?x=1", "grpc://ion:99999", ""],
)
def test_other_urls_are_refused(url):
    with pytest.raises(ValueError, match=r"is not grpc://HOST|Port out of range"):
        ion_client.connect(url)


def test_credentials_in_a_url_are_refused_and_not_shown():
    for url in ("http://ann:s3cret@ion", "grpc://s3cret@ion"):
        with pytest.raises(ValueError, match="give an api_key") as raised:
            ion_client.connect_async(url)
        assert "s3cret" not in str(raised.value)


def test_tls_files_belong_together_and_to_an_encrypted_url():
    with pytest.raises(ValueError, match="given together"):
        Tls(certificate_file="client.pem")
    with pytest.raises(ValueError, match="plain text"):
        ion_client.connect("grpc://ion", tls=Tls(ca_file="ca.pem"))


def test_numbers_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="max_retries"):
        ion_client.connect("grpc://ion", max_retries=-1)
    with pytest.raises(ValueError, match="max_age_seconds"):
        ion_client.CacheControl(max_age_seconds=-1)


@pytest.mark.parametrize(
    ("made", "absent"),
    [
        ("pass", ["grpc", "google.protobuf", "httpx", "ion.router"]),
        ("ion_client.connect('grpc://ion'); ion_client.connect_async('grpc://ion')", ["httpx"]),
        ("ion_client.connect('http://ion'); ion_client.connect_async('http://ion')", ["grpc", "google.protobuf"]),
    ],
)
def test_only_what_is_used_is_loaded(made, absent):
    services = ["chassis", "gateway_http", "router_service", "opentelemetry"]
    code = f"import ion_client, sys; {made}; print([name for name in {absent + services} if name in sys.modules])"
    path = {"PYTHONPATH": f"{ROOT}:{ROOT / 'protos' / 'gen'}"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=path, check=True)
    assert ran.stdout == "[]\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"))


async def test_over_tls_each_side_is_who_it_says(scripted, authority):
    server, client = authority.issue("server"), authority.issue("client")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.file))
    context.load_cert_chain(server.certificate, server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"] if scripted.kind.endswith("grpc") else ["http/1.1"])
    tls = Tls(authority.file, client.certificate, client.key)
    async with scripted.way(tls=context) as way:
        async with scripted.connect_by(way, tls=tls) as ion:
            assert (await ion.chat("hello")).text == "fine"
            assert (await ion.stream("hello").read()).text == "fine"
        async with scripted.connect_by(way, tls=Tls(), max_retries=0) as ion:  # the system knows no such authority
            with pytest.raises(ion_client.Unavailable) as raised:
                await ion.chat("hello")
    assert raised.value.reason == "UNREACHABLE"
    assert len(scripted.router.calls) == 2
