"""Settings: a bad value is one line that names variable, value and what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from chassis.settings import Bind, BindSetting, ListSetting, Settings, load, parse_bind
from gateway_http.settings import HttpSettings
from llm_gateway.settings import LlmSettings
from router_service.settings import RouterSettings


class Sample(Settings):
    bind: BindSetting = Field(Bind("127.0.0.1", 1), validation_alias="TEST_BIND")
    names: ListSetting = Field(("a",), validation_alias="TEST_NAMES")
    count: int = Field(3, ge=1, validation_alias="TEST_COUNT")
    secret: SecretStr | None = Field(None, max_length=3, validation_alias="TEST_SECRET")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in ("TEST_BIND", "TEST_NAMES", "TEST_COUNT", "TEST_SECRET", "ION_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "value", "shown", "allowed"),
    [
        ("TEST_BIND", "here", "'here'", "must be host:port"),
        ("TEST_BIND", "127.0.0.1:70000", "'127.0.0.1:70000'", "0 to 65535"),
        ("TEST_COUNT", "0", "'0'", "greater than or equal to 1"),
        ("TEST_COUNT", "many", "'many'", "integer"),
        ("ION_LOG_LEVEL", "loud", "'loud'", "'debug', 'info', 'warning' or 'error'"),
        ("TEST_SECRET", "hunter2", "(hidden)", "at most 3"),
    ],
)
def test_bad_value_ends_the_start(monkeypatch, capsys, variable, value, shown, allowed):
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        load(Sample)
    assert ended.value.code == 2
    line, rest = capsys.readouterr().err.split("\n", 1)
    assert rest == ""
    assert line.startswith(f"ion: {variable}={shown}: must be ") or "must" in line
    assert allowed in line
    assert "hunter2" not in line


def test_values_and_defaults(monkeypatch):
    monkeypatch.setenv("TEST_NAMES", " x , y,,")
    monkeypatch.setenv("TEST_BIND", "[::1]:80")
    monkeypatch.setenv("TEST_COUNT", "")
    settings = load(Sample)
    assert settings.names == ("x", "y")
    assert settings.bind == Bind("::1", 80)
    assert settings.count == 3


@given(st.ip_addresses(), st.integers(0, 65535))
def test_binds_are_read_as_they_are_written(address, port):
    bind = Bind(str(address), port)
    assert parse_bind(str(bind)) == bind


@given(st.text())
def test_any_text_is_a_bind_or_refused(text):
    try:
        bind = parse_bind(text)
    except ValueError:
        return
    assert 0 <= bind.port <= 65535
    assert bind.host


@pytest.mark.parametrize("settings_type", [HttpSettings, RouterSettings, LlmSettings])
def test_every_setting_has_a_variable_and_a_meaning(settings_type):
    for field in settings_type.model_fields.values():
        assert str(field.validation_alias).isupper()
        assert field.description


def test_port_wins_over_the_bind(monkeypatch):
    """Cloud Run sets it, and wants all addresses."""
    monkeypatch.setenv("ION_HTTP_BIND", "127.0.0.1:1")
    monkeypatch.setenv("PORT", "8081")
    assert load(HttpSettings).bind == Bind("0.0.0.0", 8081)
