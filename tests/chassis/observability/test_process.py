"""A process begins what it tells as the variables say, and ends it."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from chassis import telemetry
from chassis.observability import exposition, metrics, observing, tracing
from chassis.settings import Settings
from tests.otlp import Receiver, environment
from tests.stack.harness import free_port

SETTINGS = Settings()


@pytest.fixture
async def receiver(monkeypatch) -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        for name, value in environment(receiver).items():
            monkeypatch.setenv(name, value)
        yield receiver


async def tell(settings: Settings = SETTINGS, **options: Any) -> None:
    """A process that tells one thing of each kind; in a thread, as its end waits for the receiver."""

    def run() -> None:
        with observing("a-service", settings, **options):
            with tracing.span(telemetry.DB_CLIENT, "SELECT thing"):
                metrics.record(telemetry.ADMISSION_WAIT, 1)
            logging.getLogger("test").warning("it happened")

    await asyncio.to_thread(run)


async def test_all_that_was_told_is_sent_before_the_end(receiver):
    await tell()
    assert [span.name for span in receiver.spans] == ["SELECT thing"]
    assert receiver.value("ion.admission.wait") == 1
    assert [log.body for log in receiver.logs] == ["it happened"]


async def test_all_signals_tell_of_one_process(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,deployment.environment.name=test")
    await tell()
    resources = [
        {pair.key: pair.value.string_value for pair in each.resource.attributes}
        for export in receiver.exports
        for field in export.DESCRIPTOR.fields
        for each in getattr(export, field.name)
    ]
    assert len(receiver.exports) >= 3
    assert all(resource == resources[0] for resource in resources)
    assert resources[0]["service.name"] == "a-service"
    assert resources[0]["service.version"] == "9"
    assert resources[0]["deployment.environment.name"] == "test"


async def test_the_users_name_of_the_service_goes_before(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "theirs")
    await tell()
    assert set(receiver.resources) == {"theirs"}


async def test_a_signal_that_is_off_is_not_sent(receiver, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    await tell()
    assert (receiver.spans, receiver.metrics) == ([], {})
    assert [log.body for log in receiver.logs] == ["it happened"]


async def test_what_the_process_does_and_uses_is_observed(receiver):
    await tell()
    names = {point.name for point in receiver.metrics.values()}
    assert {"process.cpu.time", "process.memory.usage", "ion.telemetry.dropped"} <= names


@contextmanager
def began(settings: Settings = SETTINGS, **options: Any):
    """What is on within the block."""
    with observing("a-service", settings, **options):
        on = {
            "traces": tracing.current_span().is_recorded or tracing.span(telemetry.DB_CLIENT, "x").is_recorded,
            "metrics": metrics.is_on(),
            "exposition": exposition.current() is not None,
        }
        yield {name for name, is_on in on.items() if is_on}


def test_nothing_is_on_where_nothing_is_asked_for():
    with began() as on:
        assert on == set()


def test_metrics_are_on_for_who_serves_them_and_off_again_at_the_end():
    with began(serves_metrics=True) as on:
        assert on == {"metrics", "exposition"}
    assert not metrics.is_on()
    assert exposition.current() is None


def test_metrics_that_are_sent_alone_are_not_shown(monkeypatch):
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.1")
    with began() as on:
        assert on == {"metrics"}


def test_disabled_is_disabled(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    port = free_port()
    settings = Settings(metrics_bind=f"127.0.0.1:{port}")
    with began(settings, serves_metrics=True) as on:
        assert on == set()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_metrics_bind_serves_them_until_the_end():
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with began(Settings(metrics_bind=f"127.0.0.1:{port}")) as on:
        assert on == {"metrics", "exposition"}
        assert 'service_name="a-service"' in httpx.get(url).text
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_all_is_off_again_where_the_block_fails(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")

    def fail() -> None:
        with began(serves_metrics=True) as on:
            assert on == {"traces", "metrics", "exposition"}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not metrics.is_on()
    assert not tracing.span(telemetry.DB_CLIENT, "x").is_recorded


def test_a_variable_that_says_what_there_is_not_ends_the_start(monkeypatch, capsys):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(SystemExit), began():
        pass
    assert "OTEL_TRACES_EXPORTER='zipkin'" in capsys.readouterr().err


def test_a_service_that_tells_nothing_does_not_load_the_sdk():
    program = (
        "import sys, router_service.__main__\n"
        "from chassis.observability import observing\nfrom chassis.settings import Settings\n"
        "with observing('x', Settings()): pass\n"
        "sys.exit(str(sorted(name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'prometheus')))))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == "[]"
