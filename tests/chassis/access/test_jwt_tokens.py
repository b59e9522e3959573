"""Tokens: which are believed, and whom they name."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from chassis.access.jwks import FileKeys
from chassis.access.jwt_tokens import LEEWAY_SECONDS, JwtVerifier
from tests.issuer import AUDIENCE, ISSUER, SigningKey, key_set

ES, RS = SigningKey("es"), SigningKey("rs", "RS256")
STRANGER = SigningKey("es")


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> JwtVerifier:
    path: Path = tmp_path_factory.mktemp("keys") / "jwks.json"
    path.write_bytes(key_set(ES, RS))
    return JwtVerifier(FileKeys(path), issuer=ISSUER, audience=AUDIENCE)


@pytest.mark.parametrize("key", [ES, RS], ids=["ES256", "RS256"])
async def test_a_token_names_its_bearer(verifier, key):
    caller = await verifier.verify(key.sign())
    assert caller.principal.startswith("jwt:")
    assert "somebody" not in caller.principal
    assert caller.tier == ""
    assert caller == await verifier.verify(ES.sign())


async def test_other_subjects_are_other_callers(verifier):
    assert await verifier.verify(ES.sign(sub="a")) != await verifier.verify(ES.sign(sub="b"))


async def test_the_same_subject_of_another_issuer_is_somebody_else(verifier, tmp_path: Path):
    path = tmp_path / "jwks.json"
    path.write_bytes(key_set(ES))
    other = JwtVerifier(FileKeys(path), issuer="https://other.example", audience=AUDIENCE)
    there = await other.verify(ES.sign(iss="https://other.example"))
    assert there
    assert there != await verifier.verify(ES.sign())


@pytest.mark.parametrize(
    ("claim", "tier"), [("pro", "pro"), ("Pro;x", ""), ("a\nb", ""), (7, ""), (["pro"], ""), ("프로", "")]
)
async def test_a_tier_is_a_name_or_none(verifier, claim, tier):
    assert (await verifier.verify(ES.sign(tier=claim))).tier == tier


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://other.example"},
        {"aud": "other"},
        {"aud": ["other", "another"]},
        {"sub": ""},
        {"sub": 7},
        {"exp": "soon"},
        *({name: None} for name in ("iss", "aud", "sub", "exp", "iat")),
    ],
    ids=str,
)
async def test_claims_that_are_wrong_or_missing(verifier, claims):
    assert await verifier.verify(ES.sign(**claims)) is None


async def test_an_audience_among_others_is_enough(verifier):
    assert await verifier.verify(ES.sign(aud=["other", AUDIENCE]))


@pytest.mark.parametrize(("claim", "by"), [("exp", -1), ("iat", 1), ("nbf", 1)])
async def test_times_hold_with_a_little_leeway(verifier, claim, by):
    now = int(time.time())
    assert await verifier.verify(ES.sign(**{claim: now + by * (LEEWAY_SECONDS - 20)}))
    assert await verifier.verify(ES.sign(**{claim: now + by * (LEEWAY_SECONDS + 20)})) is None


async def test_a_strangers_signature_under_a_known_id(verifier):
    assert await verifier.verify(STRANGER.sign()) is None


async def test_a_changed_claim(verifier):
    header, claims, signature = ES.sign(sub="me").split(".")
    changed = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"sub": "you"}
    claims = base64.urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")
    assert await verifier.verify(f"{header}.{claims}.{signature}") is None


async def test_an_unsigned_token(verifier):
    claims = jwt.decode(ES.sign(), options={"verify_signature": False})
    assert await verifier.verify(jwt.encode(claims, None, "none", {"kid": "es"})) is None
    header, body, _ = ES.sign().split(".")
    assert await verifier.verify(f"{header}.{body}.") is None


@pytest.mark.parametrize("algorithm", ["HS256", "HS512"])
async def test_a_public_key_is_no_shared_secret(verifier, algorithm):
    """The old trick: sign with what everybody knows, as if it were a secret."""
    pem = RS.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(RS.sign(), options={"verify_signature": False})
    forged = _hmac_token({"alg": algorithm, "kid": "rs", "typ": "JWT"}, claims, pem)
    assert await verifier.verify(forged) is None


def _hmac_token(header: dict, claims: dict, secret: bytes) -> str:
    """PyJWT itself refuses to sign with a PEM."""
    import hashlib
    import hmac

    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    digest = hashlib.sha512 if header["alg"] == "HS512" else hashlib.sha256
    signature = hmac.new(secret, b".".join(parts), digest).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
async def test_other_algorithms_of_the_same_key(verifier, algorithm):
    claims = jwt.decode(RS.sign(), options={"verify_signature": False})
    assert await verifier.verify(jwt.encode(claims, RS.private, algorithm, {"kid": "rs"})) is None


async def test_other_algorithms_do_not_even_have_keys_looked_for():
    """Which might be a fetch."""

    class Source:
        async def find(self, kid, algorithm):
            raise AssertionError

        async def close(self):
            """Holds nothing."""

    verifier = JwtVerifier(Source(), issuer=ISSUER, audience=AUDIENCE)
    assert await verifier.verify(_hmac_token({"alg": "HS256", "kid": "x"}, {"sub": "a"}, b"secret")) is None
    assert await verifier.verify(_hmac_token({"alg": "none", "kid": "x"}, {"sub": "a"}, b"secret")) is None


async def test_a_key_is_not_taken_for_the_other_type(verifier):
    assert await verifier.verify(ES.sign(headers={"kid": "rs"})) is None
    assert await verifier.verify(RS.sign(headers={"kid": "es"})) is None


async def test_keys_in_the_token_itself_are_not_looked_at(verifier):
    assert (
        await verifier.verify(STRANGER.sign(headers={"jwk": STRANGER.public, "jku": "http://127.0.0.1:1/keys"})) is None
    )


@pytest.mark.parametrize(
    "headers", [{"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"kid": 7}, {"kid": ["es"]}], ids=str
)
async def test_headers_that_demand_something_else(verifier, headers):
    header = {"alg": "ES256", "kid": "es", "typ": "JWT"} | headers
    claims = jwt.decode(ES.sign(), options={"verify_signature": False})
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    signature = jwt.algorithms.get_default_algorithms()["ES256"].sign(b".".join(parts), ES.private)
    token = b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()
    assert await verifier.verify(token) is None


async def test_a_token_without_a_key_id_is_for_the_only_key(verifier):
    assert await verifier.verify(ES.sign(headers={"kid": None}))


async def test_a_token_that_is_too_long(verifier):
    assert await verifier.verify(ES.sign(more="x" * 8192)) is None


@given(text=st.text())
async def test_no_text_breaks_it(verifier, text):
    assert await verifier.verify(text) is None


@given(
    parts=st.lists(st.binary(), min_size=3, max_size=3), alg=st.sampled_from(["ES256", "RS256", "none", ["ES256"], {}])
)
async def test_no_parts_break_it(verifier, parts, alg):
    parts[0] = json.dumps({"alg": alg, "kid": "es"}).encode()
    token = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts).decode()
    assert await verifier.verify(token) is None
