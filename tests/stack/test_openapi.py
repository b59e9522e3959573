"""The OpenAPI document is true: whatever is asked, the answer is one that it names, and no failure of the service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema

from tests.issuer import AUDIENCE, ISSUER, SigningKey, key_set
from tests.stack.harness import Chain, standalone

OFFLINE = {"ION_LLM_BACKEND": "offline", "ION_DATABASE_TIMEOUT_SECONDS": "30"}


def settings(examples: int, bounds: bool, token: str | None) -> SchemathesisConfig:
    """`examples` an operation, and with `bounds` those at the bounds of its parameters; the same ones each time."""
    off = {"enabled": False}
    checks = {
        # Whether a message is blank, or which members of a body exclude each other, is beyond what a schema says.
        "positive_data_acceptance": off,
        "negative_data_rejection": off,
        # A caller who leaves no time gets no answer in time.
        "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", "504"]},
    }
    return SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "headers": {"Authorization": f"Bearer {token}"} if token else {},
            "checks": checks,
            "generation": {"max-examples": examples, "deterministic": True, "database": "none", "no-shrink": True},
            "phases": {"stateful": off, "coverage": {"enabled": bounds}},
        }
    )


def faults_of(url: str, *, examples: int, bounds: bool, token: str | None = None) -> tuple[set[str], str]:
    """The operations that were tried, and what the service did that its document does not say, a line each."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=settings(examples, bounds, token))
    tried, faults = set(), []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            tried.add(event.recorder.label)
            for checks in event.recorder.checks.values():
                failed = [check for check in checks if check.status is Status.FAILURE]
                faults += [f"{event.recorder.label}: {check.name}: {check.failure_info}" for check in failed]
        elif isinstance(event, events.NonFatalError | events.FatalError):
            faults.append(repr(event))
    return tried, "\n".join(faults)


async def operations_of(chain: Chain) -> set[str]:
    paths = (await chain.http.get("/openapi.json")).json()["paths"]
    return {f"{method.upper()} {path}" for path, item in paths.items() for method in item}


async def test_where_everybody_may_come_in():
    async with standalone(OFFLINE) as chain:
        tried, faults = await asyncio.to_thread(faults_of, chain.url, examples=3, bounds=True)
        assert not faults
        assert tried >= await operations_of(chain) >= {"POST /chat", "GET /sessions/{session_id}/export"}


async def test_where_callers_show_tokens(tmp_path: Path):
    key = SigningKey("key")
    keys = tmp_path / "keys.json"
    keys.write_bytes(key_set(key))
    access = {"ION_JWT_ISSUER": ISSUER, "ION_JWT_AUDIENCE": AUDIENCE, "ION_JWT_JWKS": str(keys)}
    async with standalone(OFFLINE | {"ION_AUTH": "jwt", "ION_RATE_LIMIT": "1000000/minute"} | access) as chain:
        _, faults = await asyncio.to_thread(faults_of, chain.url, examples=3, bounds=False, token=key.sign())
        assert not faults
        unknown = (await chain.http.get("/sessions")).status_code
        assert unknown == 401
