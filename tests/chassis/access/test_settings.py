"""What may be set, and the one line that a bad value ends the start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.access.settings import AccessSettings, require_proof
from chassis.settings import load
from tests.certificates import Authority
from tests.stack.harness import FOREIGN, start


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """What the start ends with."""

    def of(**env: str) -> str:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as caught:
            load(AccessSettings)
        assert caught.value.code == 2
        (said,) = capsys.readouterr().err.splitlines()
        return said

    return of


def test_by_default_everybody_may_call_as_often_as_they_like():
    settings = AccessSettings()
    assert (settings.auth, settings.requests, settings.token_limit, settings.is_guarded) == ("off", "off", "off", False)


def test_with_authentication_a_limit_holds():
    assert AccessSettings(auth="api-key").requests == "30/minute"
    assert AccessSettings(auth="api-key", rate_limit="off").requests == "off"


@pytest.mark.parametrize(
    "settings",
    [
        {"rate_limit": "5/second"},
        {"token_limit": "5/second"},
        {"rate_limit_tiers": "pro=5/second"},
        {"token_limit_tiers": "pro=5/second"},
        {"auth": "api-key", "rate_limit": "off"},
    ],
)
def test_who_is_asked_or_counted_is_not_let_in_just_so(settings):
    assert AccessSettings(**settings).is_guarded


def test_tiers_without_a_limit_guard_nothing():
    assert not AccessSettings(rate_limit_tiers="internal=off").is_guarded


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ION_AUTH", "password"),
        ("ION_RATE_LIMIT", "many"),
        ("ION_TOKEN_LIMIT", "100/eon"),
        ("ION_RATE_LIMIT_TIERS", "pro"),
        ("ION_RATE_LIMIT_TIERS", "Pro=5/minute"),
        ("ION_TOKEN_LIMIT_TIERS", "pro=lots"),
        ("ION_JWT_JWKS", "/no/such/file"),
        ("ION_JWT_JWKS", "http://example.org/keys"),
        ("ION_JWT_JWKS", "ftp://example.org/keys"),
        ("ION_RATE_LIMIT_WAIT_SECONDS", "0"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(line, variable, value):
    assert line(**{variable: value}).startswith(f"ion: {variable}={value!r}: must be ")


def test_tokens_need_an_issuer_an_audience_and_keys(line):
    said = line(ION_AUTH="jwt", ION_JWT_ISSUER="https://issuer.example")
    assert said == "ion: ION_AUTH='jwt': must come with ION_JWT_ISSUER, ION_JWT_AUDIENCE and ION_JWT_JWKS"


@pytest.mark.parametrize(
    "url", ["https://example.org/keys", "http://127.0.0.1:9/keys", "http://[::1]/k", "http://localhost/k"]
)
def test_urls_of_keys_that_nobody_else_can_change(url):
    assert AccessSettings(jwt_jwks=url).jwt_jwks == url


@pytest.mark.parametrize("url", ["http://127.0.0.1.example.org/", "http://localhost.example.org/", "https:///keys"])
def test_names_that_only_look_like_loopback(line, url):
    assert line(ION_JWT_JWKS=url)


@pytest.mark.parametrize(
    ("service", "env"), [("gateway_http", {"ION_AUTH": "api-key"}), ("router_service", {"ION_RATE_LIMIT": "5/second"})]
)
async def test_a_service_that_nobody_would_believe_does_not_start(service, env, tmp_path: Path):
    env = env | {"ION_HTTP_BIND": "127.0.0.1:0", "ION_ROUTER_BIND": "127.0.0.1:0", "ION_STATE_DIR": str(tmp_path)}
    async with start(service, service, env=env) as process:
        assert await process.ended() == 2
    (said,) = process.lines
    assert "ION_SERVICE_TOKEN" in said
    assert "ION_TLS_SERVICES" in said


def test_a_token_or_a_name_in_certificates_is_proof(tmp_path: Path):
    require_proof(AccessSettings(auth="api-key", service_token="x" * 16))
    require_proof(AccessSettings())
    files = Authority(tmp_path).issue("router")
    tls = {"tls_certificate": files.certificate, "tls_key": files.key, "tls_ca": files.authority}
    with pytest.raises(SystemExit):
        require_proof(AccessSettings(auth="api-key", **tls))
    require_proof(AccessSettings(auth="api-key", tls_services=("router",), **tls))
