"""Which peers are services."""

from __future__ import annotations

import pytest

from chassis.trust import EverybodyIsTrusted, ProvenServices

TOKEN = "0123456789abcdef"


def of(**names: str):
    """What TLS says of a peer."""
    return lambda: {f"x509_{kind}": [name.encode()] for kind, name in names.items()}


def never():
    raise AssertionError("the connection is not to be asked")


def test_the_token_makes_a_service():
    assert ProvenServices(TOKEN).trusts(TOKEN, never)


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é" * 16])
def test_another_token_does_not(token):
    assert not ProvenServices(TOKEN).trusts(token, of())


@pytest.mark.parametrize("token", ["", TOKEN])
def test_where_no_token_is_set_none_is_right(token):
    assert not ProvenServices().trusts(token, never)


def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch):
    compared = []
    monkeypatch.setattr("chassis.trust.hmac.compare_digest", lambda *both: compared.append(both) or True)
    assert ProvenServices(TOKEN).trusts("x", never)
    assert compared == [(b"x", TOKEN.encode())]


@pytest.mark.parametrize("kind", ["subject_alternative_name", "common_name"])
def test_a_name_in_the_certificate_makes_a_service(kind):
    trust = ProvenServices(names=("router", "gateway"))
    assert trust.trusts("", of(**{kind: "router"}))
    assert not trust.trusts("", of(**{kind: "robot"}))
    assert not trust.trusts("", of(transport_security_type="router"))
    assert not trust.trusts("", of())


def test_a_name_that_is_no_text_is_nobodys():
    assert not ProvenServices(names=("router",)).trusts("", lambda: {"x509_common_name": [b"\xff\xfe"]})


def test_inside_one_process_everybody_is():
    assert EverybodyIsTrusted().trusts("", never)
