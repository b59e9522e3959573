"""Which machines are this one."""

from __future__ import annotations

import pytest

from standalone.load.plan import Manner, host_of_target, host_of_url, is_loopback


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1"),
        ("https://[::1]:8080/x", "::1"),
        ("http://user@example.org", "example.org"),
    ],
)
def test_hosts_of_urls(url, host):
    assert host_of_url(url) == host


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://localhost", "http://", "http:///chat"])
def test_what_is_no_url(url):
    with pytest.raises(ValueError, match="must be a URL"):
        host_of_url(url)


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("127.0.0.1:50051", "127.0.0.1"),
        ("[::1]:50051", "::1"),
        ("dns:///router:50051", "router"),
        ("dns://8.8.8.8/router:50051", "router"),
        ("ipv4:10.0.0.1:50051", "10.0.0.1"),
        ("ipv6:[::1]:50051", "::1"),
        ("unix:/run/ion.sock", "localhost"),
        ("router", "router"),
    ],
)
def test_hosts_of_targets(target, host):
    assert host_of_target(target) == host


def test_loopback():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.255.0.1", "::1")))
    assert not any(map(is_loopback, ("localhost.example.org", "0.0.0.0", "10.0.0.1", "127.1", "router", "")))


def test_a_key_is_not_part_of_what_is_printed_of_it():
    assert "secret" not in repr(Manner(1.0, authorization="Bearer secret"))
