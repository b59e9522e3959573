"""A span for each attempt at a reply, and its measurements: how each ends, and what is never told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from chassis import telemetry
from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from chassis.observability import tracing
from llm_gateway.attempt_telemetry import CONTENT_VARIABLE, tells_content
from llm_gateway.backends.offline import OfflineBackend
from llm_gateway.generation import (
    FinishReason,
    ModelInterrupted,
    ModelNotFound,
    ModelUnavailable,
    Parameters,
    Prompt,
    Role,
    Turn,
)
from llm_gateway.labels import Labels
from llm_gateway.locations import Locations
from llm_gateway.means import HedgeMode, Means
from llm_gateway.model_calls import ModelCalls
from llm_gateway.race import Made
from tests.llm_gateway.scripted_backend import asking, reply, soon, until
from tests.llm_gateway.track import AT_ONCE, NOTHING, Reader, Remaining, Track, probing
from tests.observed import measured, recorded_spans


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    with recorded_spans() as spans:
        yield spans


class Told:
    """The spans of attempts that have ended, in that order."""

    def __init__(self, spans: InMemorySpanExporter) -> None:
        self.spans = [span for span in spans.get_finished_spans() if telemetry.GEN_AI_OPERATION in span.attributes]

    @property
    def table(self) -> list[tuple[object, ...]]:
        """Kind, location, outcome and error.type; then whether somebody should look why."""
        keys = (telemetry.ATTEMPT_KIND, telemetry.LOCATION, telemetry.ATTEMPT_OUTCOME, telemetry.ERROR_TYPE)
        return [
            (*(span.attributes.get(key) for key in keys), span.status.status_code is StatusCode.ERROR)
            for span in self.spans
        ]


async def making(track: Track, **fields: object) -> Made:
    return await ModelCalls(track.means).make(replace(asking(), **fields), soon(), Reader())


FULL = Parameters(temperature=0.5, top_p=0.9, max_output_tokens=100, response_json_schema="{}")


async def test_an_attempt_is_told_by_the_genai_conventions(new, spans):
    track = new("a")
    with tracing.span(telemetry.RPC_SERVER, "Generate") as parent:
        await track.race(persona="Lua", parameters=FULL, may_hedge=False)
    (span,) = Told(spans).spans
    assert (span.name, span.kind) == ("generate_content model-a", SpanKind.CLIENT)
    assert f"{span.parent.span_id:016x}" == parent.call.span_id
    assert dict(span.attributes) == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "test.scripted",
        "gen_ai.request.model": "model-a",
        "gen_ai.request.stream": False,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.output.type": "json",
        "gen_ai.response.model": "model-a-001",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 9,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 2,
        "server.address": "a.example",
        "server.port": 443,
        "ion.persona": "Lua",
        "ion.location": "a",
        "ion.attempt.kind": "first",
        "ion.attempt.outcome": "won",
    }


async def test_what_is_not_asked_for_is_not_told(new, spans):
    await new("a").race(may_hedge=False)
    (span,) = Told(spans).spans
    assert span.attributes[telemetry.GEN_AI_OUTPUT_TYPE] == "text"
    unset = (
        telemetry.GEN_AI_REQUEST_TEMPERATURE,
        telemetry.GEN_AI_REQUEST_TOP_P,
        telemetry.GEN_AI_REQUEST_MAX_TOKENS,
        telemetry.GEN_AI_RESPONSE_FIRST_CHUNK,
        telemetry.PERSONA,
        telemetry.ERROR_TYPE,
    )
    assert not set(unset) & set(span.attributes)


async def test_the_offline_backend_is_its_own_provider_and_is_nowhere(spans):
    backend = OfflineBackend()
    means = Means(backend, Locations(backend.locations), hedge_mode=HedgeMode.OFF)
    await ModelCalls(means).make(asking(), soon(), Reader())
    (span,) = Told(spans).spans
    assert span.attributes[telemetry.GEN_AI_PROVIDER] == "ion.offline"
    assert telemetry.SERVER_ADDRESS not in span.attributes


async def test_a_streamed_attempt_lasts_until_its_last_token_and_tells_of_its_first(new, spans):
    track = new("a")
    said = track.backend.dictate("a")
    racing = track.race(Reader(wants_text=True))
    said.say("One ")
    await until(lambda: track.backend.calls != [])
    assert spans.get_finished_spans() == ()
    said.say("two", reply("One two"))
    made = await racing
    (span,) = Told(spans).spans
    assert span.attributes[telemetry.GEN_AI_REQUEST_STREAM] is True
    assert span.attributes[telemetry.GEN_AI_RESPONSE_FIRST_CHUNK] == made.first_token_seconds
    assert 0 < made.first_token_seconds <= (span.end_time - span.start_time) / 1e9


async def test_a_retry_is_a_sibling_of_the_attempt_that_failed(new, spans):
    track = new()
    track.backend.at["a"].append(ModelUnavailable())
    with tracing.span(telemetry.RPC_SERVER, "Generate"):
        await track.race()
    told = Told(spans)
    assert told.table == [
        ("first", "a", "failed", "MODEL_UNAVAILABLE", True),
        ("retry", "b", "won", None, False),
    ]
    assert told.spans[0].parent == told.spans[1].parent


async def test_a_hedge_that_wins(new, spans):
    track = new(mode=HedgeMode.REPLY)
    track.learned(reply=AT_ONCE)
    track.backend.hold("a")
    made = await track.race()
    _, hedge = Told(spans).spans
    assert Told(spans).table == [("first", "a", "lost", "CANCELLED", False), ("hedge", "b", "won", None, False)]
    assert made.traceparent.startswith(f"00-{hedge.context.trace_id:032x}-{hedge.context.span_id:016x}-")
    assert (track.statistics.hedges_won, track.statistics.hedges_lost) == (1, 0)


async def test_a_hedge_that_loses(new, spans):
    track = new(mode=HedgeMode.REPLY)
    track.learned(reply=AT_ONCE)
    track.backend.hold("b")
    first = track.backend.dictate("a")
    racing = track.race()
    await track.asked(2)
    first.say(reply(location="a"))
    await racing
    assert Told(spans).table == [("first", "a", "won", None, False), ("hedge", "b", "lost", "CANCELLED", False)]
    assert (track.statistics.hedges_won, track.statistics.hedges_lost) == (0, 1)


async def test_of_two_replies_at_once_one_has_lost_though_it_has_not_failed(new, spans):
    track = new(mode=HedgeMode.REPLY)
    track.learned(reply=AT_ONCE)
    track.backend.hold()
    racing = track.race()
    await track.asked(2)
    track.backend.release()
    await racing
    assert Told(spans).table == [("first", "a", "won", None, False), ("hedge", "b", "lost", None, False)]


async def test_attempts_end_with_a_request_that_is_cancelled(new, spans):
    track = new("a")
    track.backend.hold()
    racing = track.race()
    await track.asked(1)
    racing.cancel()
    await asyncio.wait((racing,))
    assert Told(spans).table == [("first", "a", "cancelled", "CANCELLED", False)]


async def test_a_stream_that_breaks_off_has_failed(new, spans):
    track = new()
    track.backend.dictate("a").say("Half ", ModelUnavailable())
    with pytest.raises(ModelInterrupted):
        await track.race(Reader(wants_text=True))
    assert Told(spans).table == [("first", "a", "failed", "MODEL_UNAVAILABLE", True)]


async def test_one_that_is_given_up_after_half_of_its_time_has_failed(new, spans):
    track = new()
    track.backend.hold("a")
    deadline = Remaining(0.02)
    racing = track.race(deadline=deadline)
    await racing
    assert Told(spans).table[0] == ("first", "a", "failed", "DEADLINE_EXCEEDED", True)


async def test_one_that_ends_with_the_deadline_and_has_nowhere_to_go_has_failed(new, spans):
    track = new("a")
    track.backend.hold("a")
    with pytest.raises(DeadlineExceeded):
        await track.race(deadline=Deadline.after(0.02))
    assert Told(spans).table == [("first", "a", "failed", "DEADLINE_EXCEEDED", True)]


async def test_one_that_is_left_since_its_location_is_away_has_lost(new, spans):
    track = new()
    track.learned(first_token=AT_ONCE)
    track.means.hedge_budget = NOTHING
    track.backend.hold("a")
    racing = track.race()
    await track.late()
    track.locations.open("a")
    await racing
    assert Told(spans).table == [("first", "a", "lost", "CANCELLED", False), ("retry", "b", "won", None, False)]


@pytest.mark.parametrize(
    ("outcome", "ending", "error"),
    [
        (reply(location="a"), "lost", None),
        (ModelNotFound(), "failed", "MODEL_NOT_FOUND"),
        (None, "cancelled", "CANCELLED"),
    ],
)
async def test_a_probe_that_outlives_the_race_has_a_span_until_its_end(new, spans, outcome, ending, error):
    track = probing(new)
    probe = track.backend.dictate("a")
    with tracing.span(telemetry.RPC_SERVER, "Generate"):
        await track.race()
    assert Told(spans).table == [("first", "b", "won", None, False)]
    if outcome is None:
        await ModelCalls(track.means).close()
    else:
        probe.say(outcome)
    await until(lambda: not track.means.probes)
    told = Told(spans)
    assert told.table[1:] == [("probe", "a", ending, error, ending == "failed")]
    assert told.spans[0].parent == told.spans[1].parent


# What is said


SAID = Prompt("Be Lua.", (Turn(Role.USER, "안녕"), Turn(Role.MODEL, "Hi"), Turn(Role.USER, "And?")))


@pytest.mark.parametrize(
    ("value", "tells"),
    [
        ("true", True),
        ("SPAN_ONLY", True),
        ("span_and_event", True),
        ("EVENT_ONLY", False),
        ("false", False),
        ("", False),
    ],
)
def test_what_is_said_is_told_by_the_standard_opt_in_alone(value, tells):
    assert tells_content({CONTENT_VARIABLE: value}) is tells
    assert tells_content({}) is False


def everything_told(spans: InMemorySpanExporter) -> str:
    return "".join(span.to_json() for span in spans.get_finished_spans())


async def test_nothing_that_is_said_is_told_by_default(new, spans):
    track = new("a")
    track.backend.at["a"].append(reply("SECRET reply"))
    prompt = Prompt("SECRET instruction", (Turn(Role.USER, "SECRET question"),))
    await making(track, prompt=prompt, scope="SECRET scope")
    assert Told(spans).spans
    assert "SECRET" not in everything_told(spans)


async def test_with_the_opt_in_messages_are_told_by_the_conventions_schema(new, spans):
    track = new("a")
    track.means.tells_content = True
    track.backend.at["a"].append(reply("Well …", finish_reason=FinishReason.MAX_TOKENS))
    await making(track, prompt=SAID)
    (span,) = Told(spans).spans
    told = {
        key: json.loads(span.attributes[key]) for key in span.attributes if key.endswith(("instructions", "messages"))
    }
    assert told == {
        "gen_ai.system_instructions": [{"type": "text", "content": "Be Lua."}],
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": "안녕"}]},
            {"role": "assistant", "parts": [{"type": "text", "content": "Hi"}]},
            {"role": "user", "parts": [{"type": "text", "content": "And?"}]},
        ],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": "Well …"}], "finish_reason": "length"}
        ],
    }


# Measurements


def asked_for(track: Track) -> dict[str, str]:
    return {
        telemetry.GEN_AI_OPERATION: "generate_content",
        telemetry.GEN_AI_PROVIDER: track.backend.provider,
        telemetry.GEN_AI_REQUEST_MODEL: "model-a",
    }


async def test_attempts_are_measured_with_their_spans_as_exemplars(new, spans):
    track = new()
    track.backend.at["a"].append(ModelUnavailable())
    with measured() as seen:
        await track.race()
        durations = seen.points(telemetry.GEN_AI_DURATION)
    failed, won = Told(spans).spans
    known = asked_for(track)
    assert {tuple(sorted(point.attributes.items())): point.exemplars[0].span_id for point in durations} == {
        tuple(sorted((known | attributes).items())): span.context.span_id
        for attributes, span in (
            (
                {
                    telemetry.LOCATION: "a",
                    telemetry.ATTEMPT_KIND: "first",
                    telemetry.ERROR_TYPE: "MODEL_UNAVAILABLE",
                },
                failed,
            ),
            ({telemetry.LOCATION: "b", telemetry.ATTEMPT_KIND: "retry"}, won),
        )
    }


async def test_tokens_of_a_reply_are_measured_and_first_chunks_of_streams(new):
    track = new("a")
    with measured() as seen:
        await track.race(may_hedge=False)
        assert seen.points(telemetry.GEN_AI_FIRST_CHUNK) == []
        made = await track.race(Reader(wants_text=True))
        tokens = {
            point.attributes[telemetry.GEN_AI_TOKEN_TYPE]: point for point in seen.points(telemetry.GEN_AI_TOKENS)
        }
        (first_chunk,) = seen.points(telemetry.GEN_AI_FIRST_CHUNK)
        (duration,) = seen.points(telemetry.GEN_AI_DURATION)
    assert {kind: (point.count, point.sum) for kind, point in tokens.items()} == {"input": (2, 22), "output": (2, 18)}
    assert dict(tokens["input"].attributes) == asked_for(track) | {telemetry.GEN_AI_TOKEN_TYPE: "input"}
    assert (first_chunk.count, first_chunk.sum) == (1, made.first_token_seconds)
    assert dict(first_chunk.attributes) == asked_for(track) | {telemetry.LOCATION: "a"}
    assert duration.count == 2
    assert 0 < duration.sum < 10


async def test_what_is_cut_off_is_no_fast_reply(new):
    track = new("a")
    track.backend.hold()
    with measured() as seen:
        racing = track.race()
        await track.asked(1)
        racing.cancel()
        await asyncio.wait((racing,))
        assert seen.value(telemetry.GEN_AI_DURATION, {telemetry.ERROR_TYPE: "CANCELLED"}) == 1
        assert seen.points(telemetry.GEN_AI_TOKENS) == []


async def test_models_that_callers_make_up_share_one_label_and_span_name(new, spans):
    track = new("a")
    track.means.labels = Labels("model-a", {"model-b": "model-b", "model-b-001": "model-b"}.get)
    with measured() as seen:
        for model in ("model-a", "model-b-001", "made-up", "made-up-too"):
            await making(track, model=model)
        by_model = {
            point.attributes[telemetry.GEN_AI_REQUEST_MODEL]: point.count
            for point in seen.points(telemetry.GEN_AI_DURATION)
        }
    assert by_model == {"model-a": 1, "model-b": 1, "(other)": 2}
    assert [(span.name, span.attributes[telemetry.GEN_AI_REQUEST_MODEL]) for span in Told(spans).spans] == [
        ("generate_content model-a", "model-a"),
        ("generate_content model-b", "model-b-001"),
        ("generate_content (other)", "made-up"),
        ("generate_content (other)", "made-up-too"),
    ]


async def test_what_is_not_sampled_costs_no_attributes(new):
    track = new("a")
    track.backend.address = None  # would fail if it were called
    with recorded_spans("parentbased_always_off") as spans:
        made = await track.race()
    assert (made.traceparent, spans.get_finished_spans()) == ("", ())
