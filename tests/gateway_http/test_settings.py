"""Settings of the HTTP gateway."""

from __future__ import annotations

import pytest

from chassis.settings import Bind, load
from gateway_http.settings import HttpSettings


def test_a_port_wins_over_the_bind(monkeypatch):
    monkeypatch.setenv("ION_HTTP_BIND", "127.0.0.1:1")
    assert (load(HttpSettings).bind, load(HttpSettings).bind_variable) == (Bind("127.0.0.1", 1), "ION_HTTP_BIND")
    monkeypatch.setenv("PORT", "99")
    assert (load(HttpSettings).bind, load(HttpSettings).bind_variable) == (Bind("0.0.0.0", 99), "PORT")


def test_trusted_proxies_are_addresses_and_networks(monkeypatch):
    assert load(HttpSettings).trusted_proxies == ()
    monkeypatch.setenv("ION_TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8,fd00::/8")
    assert load(HttpSettings).trusted_proxies == ("127.0.0.1", "10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize("value", ["*", "proxy.example", "10.0.0.1/8", "10.0.0.0/33"])
def test_nobody_is_trusted_by_name_or_all_at_once(value, monkeypatch, capsys):
    monkeypatch.setenv("ION_TRUSTED_PROXIES", value)
    with pytest.raises(SystemExit):
        load(HttpSettings)
    assert "ION_TRUSTED_PROXIES" in capsys.readouterr().err
