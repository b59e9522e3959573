"""What a client shows of itself: keys, request ids and traces; and what it never shows."""

from __future__ import annotations

import asyncio
import sys
import traceback
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.trace import TracerProvider

import ion_client
from tests.ion_client.kinds import connected
from tests.stack.harness import ROOT, standalone


async def ion_command(state_dir, *arguments):
    """What an `ion` command prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "standalone", *arguments),
        cwd=ROOT,
        env={"ION_STATE_DIR": str(state_dir)},
        stdout=asyncio.subprocess.PIPE,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode().strip()


@asynccontextmanager
async def guarded(state_dir):
    """An ION that takes keys, and four calls a minute of each; yields it and a key."""
    key = await ion_command(state_dir, "keys", "create", "test")
    env = {"ION_AUTH": "api-key", "ION_RATE_LIMIT": "4/minute", "ION_STATE_DIR": str(state_dir)}
    async with standalone(env) as chain:
        yield chain, key


async def test_a_key_opens_the_door_until_its_limit_is_reached(tmp_path, monkeypatch):
    monkeypatch.delenv("ION_API_KEY", raising=False)
    async with guarded(tmp_path) as (chain, key):
        http = chain.url.removeprefix("http://")
        for kind in ("sync http", "async grpc"):
            async with connected(kind, grpc=chain.router, http=http) as ion:
                with pytest.raises(ion_client.Unauthenticated) as raised:
                    await ion.personas()
            assert (raised.value.reason, raised.value.retryable) == ("UNAUTHENTICATED", False)
        async with connected("async http", grpc=chain.router, http=http, api_key=lambda: key) as ion:
            assert await ion.personas()
        monkeypatch.setenv("ION_API_KEY", f"{key}\n")
        for kind in ("sync http", "async grpc", "sync grpc"):
            async with connected(kind, grpc=chain.router, http=http) as ion:
                assert (await ion.chat("hello")).persona
        for kind in ("async http", "sync grpc"):
            async with connected(kind, grpc=chain.router, http=http) as ion:
                with pytest.raises(ion_client.RateLimited) as raised:
                    await ion.stream("hello", timeout_seconds=2).read()
            assert (raised.value.reason, raised.value.refused) == ("RATE_LIMITED", True)
            assert 0 < raised.value.retry_after_seconds <= 60


async def test_a_key_is_shown_to_the_service_alone(scripted):
    way = scripted.way(port=1)
    async with scripted.connect_by(way, api_key="s3cret-key", max_retries=0) as ion:
        for call in (ion.chat("hello"), ion.stream("hello").read()):
            with pytest.raises(ion_client.Unavailable) as raised:
                await call
            shown = "".join(traceback.TracebackException.from_exception(raised.value, capture_locals=False).format())
            assert "s3cret" not in shown + repr(raised.value.__dict__)
        assert "s3cret" not in repr(ion) + repr(getattr(ion, "sync", ion).__dict__)


@pytest.mark.parametrize("key", ["with space", "line\nbreak", "schlüssel"])
def test_a_key_that_cannot_travel_is_refused_without_showing_it(key):
    with pytest.raises(ValueError, match="printable ASCII") as raised:
        ion_client.connect("grpc://ion", api_key=key)
    assert key not in str(raised.value)
    with ion_client.connect("grpc://ion", api_key=lambda: key) as ion, pytest.raises(ValueError, match="printable"):
        ion.personas()


@pytest.mark.parametrize("kind", ["sync grpc", "async grpc"], indirect=True)
async def test_a_given_key_goes_before_that_of_the_environment(scripted, monkeypatch):
    monkeypatch.setenv("ION_API_KEY", "of-the-environment")
    async with scripted.connect() as ion:
        await ion.chat("hello")
    async with scripted.connect(api_key="given") as ion:
        await ion.chat("hello")
    shown = [call.metadata["authorization"] for call in scripted.router.calls]
    assert shown == ["Bearer of-the-environment", "Bearer given"]


async def test_each_call_has_an_id_that_the_service_goes_by(scripted):
    async with scripted.connect() as ion:
        replies = [await ion.chat("hello"), await ion.stream("hello").read()]
    ids = [call.metadata["x-request-id"] for call in scripted.router.calls]
    assert ids == [reply.request_id for reply in replies]
    assert len(set(ids)) == 2


async def test_a_call_belongs_to_the_trace_it_is_made_in(scripted):
    tracer = TracerProvider().get_tracer("test")
    async with scripted.connect() as ion:
        with tracer.start_as_current_span("a caller's work") as span:
            reply = await ion.chat("hello")
            streamed = await ion.stream("hello").read()
        apart = await ion.chat("hello")
    trace_id = f"{span.get_span_context().trace_id:032x}"
    traces = [call.metadata["traceparent"][3:35] for call in scripted.router.calls[:2]]
    assert traces == [trace_id] * 2
    assert reply.request_id == streamed.request_id == trace_id
    assert apart.request_id != trace_id
