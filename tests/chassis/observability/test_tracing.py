"""What identifies a request is taken on, carried on and logged."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from chassis import telemetry

TRACEPARENT = f"00-{'a' * 32}-{'b' * 16}-01"


def test_well_formed_ids_are_taken_on_and_carried():
    telemetry.enter("my-request.1", TRACEPARENT)
    assert dict(telemetry.outgoing_metadata()) == {"x-request-id": "my-request.1", "traceparent": TRACEPARENT}


@given(st.none() | st.text(), st.none() | st.text())
def test_whatever_comes_ids_are_well_formed(request_id, traceparent):
    call = telemetry.enter(request_id, traceparent)
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", call.request_id)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", call.traceparent)
    assert "0" * 32 not in call.traceparent


def test_a_request_without_an_id_goes_by_its_traces():
    call = telemetry.enter(None, TRACEPARENT)
    assert call.request_id == "a" * 32
    assert telemetry.outgoing_metadata() == (("traceparent", TRACEPARENT),)
    there = telemetry.enter(None, dict(telemetry.outgoing_metadata())["traceparent"])
    assert there == call


def test_zero_ids_are_not_taken_on():
    zero = f"00-{'0' * 32}-{'b' * 16}-01"
    assert telemetry.enter(None, zero).traceparent != zero


def run(program: str, **env: str) -> list[str]:
    """The lines that a process of its own writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stderr.splitlines()


def test_log_lines_are_json_with_ids():
    lines = run(
        "import logging\nfrom chassis import telemetry\n"
        "telemetry.setup('svc', 'info')\n"
        f"telemetry.enter('req-1', '{TRACEPARENT}')\n"
        "logging.getLogger('x').info('안녕', extra={'answer': 42})\n"
        "logging.getLogger('x').debug('unseen')\n"
    )
    record = json.loads(lines[0])
    assert len(lines) == 1
    assert (record["message"], record["answer"], record["severity"]) == ("안녕", 42, "INFO")
    assert (record["request_id"], record["trace_id"], record["service"]) == ("req-1", "a" * 32, "svc")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT.*", record["time"])


HOPS = """
import sys
from chassis import telemetry
from opentelemetry.trace import SpanKind
telemetry.setup('svc', 'error')
telemetry.enter({request_id!r}, {traceparent!r})
with telemetry.span('outer', SpanKind.CLIENT):
    carried = dict(telemetry.outgoing_metadata())
telemetry.enter(carried.get('x-request-id'), carried['traceparent'])
with telemetry.span('inner', SpanKind.SERVER):
    sys.stdout.write(telemetry.current().request_id)
getattr(telemetry.trace.get_tracer_provider(), 'force_flush', bool)()
"""


def spans(traceparent: str | None, **env: str) -> dict[str, dict]:
    """The spans of two hops, by name."""
    text = "\n".join(
        run(HOPS.format(request_id="req-1", traceparent=traceparent), OTEL_TRACES_EXPORTER="console", **env)
    )
    decoder, found, position = json.JSONDecoder(), {}, 0
    while (start := text.find("{\n", position)) >= 0:
        span, position = decoder.raw_decode(text, start)
        found[span["name"]] = span
    return found


def test_spans_of_two_hops_are_one_trace_below_the_callers():
    found = spans(TRACEPARENT)
    assert found["outer"]["parent_id"] == "0x" + "b" * 16
    assert found["inner"]["parent_id"] == found["outer"]["context"]["span_id"]
    assert {span["context"]["trace_id"] for span in found.values()} == {"0x" + "a" * 32}


def test_a_request_without_a_trace_begins_one():
    found = spans(None)
    assert found["outer"]["parent_id"] is None
    assert found["inner"]["parent_id"] == found["outer"]["context"]["span_id"]


def test_a_request_without_ids_goes_by_the_id_of_the_trace_that_it_begins():
    program = HOPS.format(request_id=None, traceparent=None)
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "parentbased_always_off"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert re.fullmatch(r"[0-9a-f]{32}", done.stdout)


def test_what_the_caller_has_not_sampled_is_left_alone_by_samplers_that_follow_the_parent():
    not_sampled = TRACEPARENT[:-2] + "00"
    assert spans(not_sampled) == {}
    assert set(spans(not_sampled, OTEL_TRACES_SAMPLER="always_on")) == {"outer", "inner"}
    assert spans(None, OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0") == {}


def test_below_a_hop_that_was_not_sampled_nothing_is_spent():
    """The context is the one that the SDK writes, with flags of its own."""
    program = (
        HOPS.format(request_id=None, traceparent=None) + "\nprint(type(telemetry.span('x', SpanKind.SERVER)).__name__)"
    )
    for sampler, kind in (
        ("parentbased_always_off", "nullcontext"),
        ("parentbased_always_on", "_GeneratorContextManager"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": sampler},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.endswith(f"{kind}\n")


def test_nothing_is_traced_where_it_was_not_asked_for():
    program = HOPS.format(request_id="req-1", traceparent=TRACEPARENT)
    assert run(program) == []
    assert run(program, OTEL_TRACES_EXPORTER="console", OTEL_SDK_DISABLED="true") == []
