"""What identifies a request is taken on and carried on, and its spans hang together."""

from __future__ import annotations

import asyncio
import logging
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind, StatusCode, TraceState

from chassis import telemetry
from chassis.errors import IonError
from chassis.observability import tracing
from ion.error.v1.reason_pb2 import Reason
from tests.observed import measured, recorded_spans

TRACE, PARENT = "a" * 32, "b" * 16
SAMPLED = f"00-{TRACE}-{PARENT}-01"
UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


def names(spans) -> set[str]:
    return {span.name for span in spans.get_finished_spans()}


def by_name(spans) -> dict:
    return {span.name: span for span in spans.get_finished_spans()}


def take_on(metadata) -> tracing.CallContext:
    """As the next service does."""
    carried = dict(metadata)
    return tracing.enter(
        carried.get(tracing.REQUEST_ID_KEY),
        carried.get(tracing.TRACEPARENT_KEY),
        carried.get(tracing.TRACESTATE_KEY, ""),
        carried.get(tracing.BAGGAGE_KEY, ""),
    )


# What comes in, and goes out


def test_well_formed_ids_are_taken_on_and_carried():
    tracing.enter("my-request.1", SAMPLED, "vendor=1", "tier=gold")
    assert dict(tracing.outgoing_metadata()) == {
        "x-request-id": "my-request.1",
        "traceparent": SAMPLED,
        "tracestate": "vendor=1",
        "baggage": "tier=gold",
    }


@given(st.none() | st.text(), st.none() | st.text(), st.text(), st.text())
def test_whatever_comes_ids_are_well_formed(request_id, traceparent, tracestate, baggage):
    call = tracing.enter(request_id, traceparent, tracestate, baggage)
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", call.request_id)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", call.traceparent)
    assert "0" * 32 not in call.traceparent
    assert len(call.tracestate) <= 512
    assert re.fullmatch(r"[ -~]{0,1024}", call.baggage)


TWO_DIGITS = st.from_regex("[0-9a-f]{2}", fullmatch=True)


@given(TWO_DIGITS, TWO_DIGITS, st.sampled_from(["", "-", "-x", "x"]))
@example("ff", "01", "")
@example("00", "01", "-x")
def test_a_traceparent_of_a_later_version_is_read_as_far_as_it_is_known(version, flags, more):
    ours = f"{TRACE}-{PARENT}-{flags}"
    known = {"00": not more, "ff": False}.get(version, more != "x")
    assert (tracing.enter(None, f"{version}-{ours}{more}").traceparent == f"00-{ours}") == known


@pytest.mark.parametrize(
    "malformed",
    [
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-0g",
        f" {SAMPLED}",
        f"{SAMPLED}\n",
    ],
)
def test_a_malformed_traceparent_is_not_taken_on_nor_its_state(malformed):
    call = tracing.enter(None, malformed, "vendor=1")
    assert call.trace_id not in ("0" * 32, TRACE, TRACE.upper())
    assert call.tracestate == ""


MEMBER = st.from_regex(r"[a-z][_0-9a-z*/-]{0,9}(@[a-z])?=[!-+\--<>-~]{1,9}", fullmatch=True)


@given(st.lists(MEMBER, min_size=1, max_size=40).map(",".join) | st.text(" abAB=,@\t'%09", max_size=20))
@example(",".join(f"k{number}=v" for number in range(32)))
@example(",".join(f"k{number}=v" for number in range(33)))
@example("k=" + "v" * 257)
@example("k= v")
@example("k=v ")
@example("1k@v=1 ,\tb=2")
def test_a_state_is_carried_that_the_sdk_reads_without_a_word(tracestate):
    """Its warnings would say what a caller made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger("opentelemetry.trace.span"), "warning", pytest.fail)
        carried = tracing.enter(None, SAMPLED, tracestate).tracestate
        read = TraceState.from_header([carried])
    assert carried in ("", tracestate)
    members = carried.split(",")
    assert not carried or len(read) == len(members) or len({member.split("=")[0].strip() for member in members}) < 32


def test_a_state_that_is_well_formed_is_carried():
    for tracestate in ("a=1", "a=1,b=2", "a=1, b=2", "tenant@vendor=x y", "k=" + "v" * 256):
        assert tracing.enter(None, SAMPLED, tracestate).tracestate == tracestate


@pytest.mark.parametrize(("key", "most"), [("tracestate", 512), ("baggage", 1024)])
def test_what_is_too_long_is_not_carried(key, most):
    """Each in the longest form that is: the state of two members, as one is shorter."""
    longest = f"a={'v' * 254},b={'v' * (most - 259)}"
    assert len(longest) == most
    for value, carried in ((longest, longest), (f"{longest}v", "")):
        if key == "baggage":
            assert tracing.enter(None, SAMPLED, "", value).baggage == carried
        else:
            assert tracing.enter(None, SAMPLED, value).tracestate == carried


@pytest.mark.parametrize("malformed", ["a=1\r\nx-api-key: mine", "이름=1", " a=1", "a=1 "])
def test_baggage_that_is_no_header_is_not_carried(malformed):
    assert tracing.enter(None, SAMPLED, "", malformed).baggage == ""


def test_a_request_without_an_id_goes_by_its_traces():
    call = tracing.enter(None, SAMPLED)
    assert call.request_id == TRACE
    assert tracing.outgoing_metadata() == (("traceparent", SAMPLED),)
    assert take_on(tracing.outgoing_metadata()) == call


# Spans


def test_spans_of_two_hops_are_one_trace_below_the_callers():
    with recorded_spans("parentbased_always_on") as spans:
        tracing.enter("req-1", SAMPLED, "vendor=1", "tier=gold")
        with tracing.span(telemetry.RPC_CLIENT, "outer"):
            carried = tracing.outgoing_metadata()
        call = take_on(carried)
        with tracing.span(telemetry.RPC_SERVER, "inner"):
            assert tracing.current().request_id == "req-1"
    outer, inner = by_name(spans)["outer"], by_name(spans)["inner"]
    assert (f"{outer.parent.span_id:016x}", inner.parent.span_id) == (PARENT, outer.context.span_id)
    assert (outer.kind, inner.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert {f"{span.context.trace_id:032x}" for span in (outer, inner)} == {TRACE}
    assert {span.context.trace_state.to_header() for span in (outer, inner)} == {"vendor=1"}
    assert (call.tracestate, call.baggage) == ("vendor=1", "tier=gold")


def test_a_request_without_a_trace_begins_one_and_goes_by_its_id():
    with recorded_spans("parentbased_always_on") as spans:
        tracing.enter(None, None)
        with tracing.span(telemetry.RPC_CLIENT, "outer"):
            carried = tracing.outgoing_metadata()
        call = take_on(carried)
        with tracing.span(telemetry.RPC_SERVER, "inner"):
            assert tracing.current().request_id == call.request_id
    outer, inner = by_name(spans)["outer"], by_name(spans)["inner"]
    assert outer.parent is None
    assert inner.parent.span_id == outer.context.span_id
    assert call.request_id == f"{outer.context.trace_id:032x}"


@pytest.mark.parametrize(
    ("sampler", "ratio", "traceparent", "recorded"),
    [
        ("parentbased_always_on", "", None, True),
        ("parentbased_always_on", "", SAMPLED, True),
        ("parentbased_always_on", "", UNSAMPLED, False),
        ("parentbased_always_off", "", None, False),
        ("parentbased_always_off", "", SAMPLED, True),
        ("parentbased_traceidratio", "0", None, False),
        ("parentbased_traceidratio", "0", SAMPLED, True),
        ("parentbased_traceidratio", "1", None, True),
        ("parentbased_traceidratio", "1", UNSAMPLED, False),
        ("traceidratio", "0", SAMPLED, False),
        ("traceidratio", "1", UNSAMPLED, True),
        ("always_on", "", UNSAMPLED, True),
        ("always_off", "", SAMPLED, False),
    ],
)
def test_what_is_recorded_is_up_to_the_standard_samplers(sampler, ratio, traceparent, recorded):
    with recorded_spans(sampler, ratio) as spans:
        tracing.enter(None, traceparent)
        with tracing.span(telemetry.RPC_CLIENT, "outer"):
            carried = tracing.outgoing_metadata()
        take_on(carried)
        with tracing.span(telemetry.RPC_SERVER, "inner") as inner:
            assert inner.is_recorded == recorded
            assert tracing.is_sampled(tracing.current().traceparent) == recorded
            assert re.fullmatch(r"[0-9a-f]{32}", tracing.current().request_id)
    assert names(spans) == ({"outer", "inner"} if recorded else set())


@pytest.mark.parametrize("traceparent", [None, UNSAMPLED])
def test_below_a_hop_that_was_not_sampled_nothing_is_spent(traceparent):
    """The SDK is not asked; the context of the first case is one that it writes, with flags of its own."""
    with recorded_spans("parentbased_always_off"):
        tracing.enter(None, traceparent)
        with tracing.span(telemetry.RPC_CLIENT, "outer"):
            carried = tracing.outgoing_metadata()
        mine = take_on(carried)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracing._tracer, "start_span", pytest.fail)
            with tracing.span(telemetry.RPC_SERVER, "inner"):
                assert tracing.current() is mine


def test_nothing_is_recorded_where_tracing_is_off():
    mine = tracing.enter("req-1", SAMPLED)
    with tracing.span(telemetry.RPC_SERVER, "x") as span:
        span.set(telemetry.PERSONA, "Aria")
        assert (tracing.current(), span.is_recorded, span.call) == (mine, False, mine)


@pytest.fixture
def spans():
    with recorded_spans() as exporter:
        yield exporter


def test_a_span_holds_what_it_is_told(spans):
    tracing.enter(None, SAMPLED)
    with tracing.span(telemetry.DB_CLIENT, "x", {telemetry.DB_SYSTEM: "redis"}) as span:
        span.set(telemetry.DB_OPERATION, "EVAL")
        span.event("late", {telemetry.CACHE_TIER: "shared"})
        span.link(f"00-{'c' * 32}-{'d' * 16}-01")
        for no_link in ("", "nonsense"):
            span.link(no_link)
        span.rename("EVAL reply")
        assert tracing.current_span() is span
    told = by_name(spans)["EVAL reply"]
    assert dict(told.attributes) == {"db.system.name": "redis", "db.operation.name": "EVAL"}
    assert [(event.name, dict(event.attributes)) for event in told.events] == [("late", {"ion.cache.tier": "shared"})]
    assert [f"{link.context.trace_id:032x} {link.context.span_id:016x}" for link in told.links] == [
        f"{'c' * 32} {'d' * 16}"
    ]
    assert tracing.current_span().is_recorded is False


class Unseen(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (IonError(Reason.REASON_MODEL_QUOTA, "secret"), "MODEL_QUOTA", StatusCode.ERROR),
        (Unseen("secret"), "Unseen", StatusCode.ERROR),
        (asyncio.CancelledError("secret"), "CANCELLED", StatusCode.UNSET),
        (GeneratorExit("secret"), "CANCELLED", StatusCode.UNSET),
    ],
)
def test_a_span_says_why_it_failed_and_not_in_which_words(spans, error, kind, status):
    with pytest.raises(type(error)), tracing.span(telemetry.DB_CLIENT, "x"):
        raise error
    told = by_name(spans)["x"]
    assert (told.attributes["error.type"], told.status.status_code) == (kind, status)
    assert "secret" not in told.to_json()


def test_the_first_reason_stands(spans):
    span = tracing.span(telemetry.DB_CLIENT, "x")
    span.fail("EXPECTED", is_error=False)
    span.end_with(Unseen())
    told = by_name(spans)["x"]
    assert (told.attributes["error.type"], told.status.status_code) == ("EXPECTED", StatusCode.UNSET)


def test_a_span_that_has_ended_forgets_what_it_is_told(spans, caplog):
    with tracing.span(telemetry.DB_CLIENT, "x") as span:
        pass
    span.set(telemetry.DB_OPERATION, "EVAL")
    span.event("late")
    span.link(SAMPLED)
    span.rename("y")
    span.fail("LATE")
    span.end()
    assert not span.is_recorded
    assert span.call.span is None  # so that nothing is left for the garbage collector
    assert [dict(told.attributes) for told in spans.get_finished_spans()] == [{}]
    assert names(spans) == {"x"}
    assert caplog.records == []


async def test_tasks_that_outlive_a_span_are_below_it_and_tell_it_nothing(spans, caplog):
    ended = asyncio.Event()

    async def child(name: str, wait: bool) -> None:
        if wait:
            await ended.wait()
            assert not tracing.current_span().is_recorded
            tracing.current_span().set(telemetry.PERSONA, "Aria")
        with tracing.span(telemetry.DB_CLIENT, name):
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        with tracing.span(telemetry.RPC_SERVER, "parent"):
            tasks.create_task(child("late", True))
            await tasks.create_task(child("early", False))
            assert tracing.current_span().is_recorded
        ended.set()
    told = by_name(spans)
    parent = told["parent"]
    assert {told[name].parent.span_id for name in ("early", "late")} == {parent.context.span_id}
    assert not told["early"].parent.is_remote
    assert dict(parent.attributes) == {}
    assert caplog.records == []


async def test_the_reader_of_a_generator_is_not_in_its_span(spans):
    async def pieces():
        span = tracing.span(telemetry.GEN_AI_CLIENT, "attempt")
        try:
            yield "1"
            yield "2"
        finally:
            span.end_with(None)

    with tracing.span(telemetry.RPC_SERVER, "parent") as parent:
        async for _ in pieces():
            assert tracing.current_span() is parent
            with tracing.span(telemetry.DB_CLIENT, "beside"):
                pass
    told = by_name(spans)
    assert {told[name].parent.span_id for name in ("attempt", "beside")} == {told["parent"].context.span_id}


async def test_a_task_may_be_in_a_span_that_another_ends(spans):
    span = tracing.span(telemetry.GEN_AI_CLIENT, "attempt")

    async def attempt() -> None:
        span.enter()
        assert tracing.current_span() is span
        with tracing.span(telemetry.DB_CLIENT, "below"):
            pass

    await asyncio.create_task(attempt())
    assert not tracing.current_span().is_recorded
    span.end_with(None)
    told = by_name(spans)
    assert told["below"].parent.span_id == told["attempt"].context.span_id


def test_a_link_leads_to_what_somebody_will_find(spans):
    with tracing.span(telemetry.GEN_AI_CLIENT, "made") as made:
        assert made.sampled_traceparent == tracing.current().traceparent
    with tracing.span(telemetry.RPC_SERVER, "used") as used:
        used.link(made.sampled_traceparent)
    told = by_name(spans)
    assert [link.context.span_id for link in told["used"].links] == [told["made"].context.span_id]


@pytest.mark.parametrize("sampler", ["always_off", "parentbased_always_off"])
def test_there_is_no_link_to_what_was_not_sampled(sampler):
    with recorded_spans(sampler):
        tracing.enter(None, None)
        with tracing.span(telemetry.GEN_AI_CLIENT, "made") as made:
            assert made.sampled_traceparent == ""


async def test_a_span_ends_where_its_task_is_cancelled(spans):
    started = asyncio.Event()

    async def hang() -> None:
        with tracing.span(telemetry.DB_CLIENT, "x"):
            started.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert by_name(spans)["x"].attributes["error.type"] == "CANCELLED"


def test_what_has_ended_is_still_an_exemplar(spans):
    """Whoever measures a span may do so after its end."""
    from chassis.observability import metrics

    with measured() as seen:
        with tracing.span(telemetry.DB_CLIENT, "x") as span:
            pass
        metrics.record(telemetry.DB_DURATION, 0.1, {}, span)
        (exemplar,) = seen.points(telemetry.DB_DURATION)[0].exemplars
    assert exemplar.span_id == by_name(spans)["x"].context.span_id
