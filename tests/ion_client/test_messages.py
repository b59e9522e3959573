"""What both transports make of the same answers: every value of every enumeration comes out alike."""

from __future__ import annotations

import msgspec
import pytest

from gateway_http import translation
from ion.error.v1 import reason_pb2
from ion.llm.v1 import llm_pb2
from ion.router.v1 import router_pb2
from ion_client._grpc import messages as over_grpc
from ion_client._http import messages as over_http

USAGE = llm_pb2.Usage(input_tokens=1, output_tokens=2, cached_input_tokens=3, thinking_tokens=4)


def both(response):
    """The reply as each transport has it."""
    body = msgspec.json.decode(msgspec.json.encode(translation.chat_response(response)))
    timing = translation.server_timing(response.timings)
    return over_grpc.reply(response), over_http.reply(over_http.Answer(body, {"server-timing": timing}))


def answer(**generation):
    return router_pb2.ChatResponse(
        content="hi",
        routing=router_pb2.Routing(persona="Lua", pinned=True, margin=-0.1),
        analysis=router_pb2.Analysis(rhythm=router_pb2.Rhythm(pace="flowing")),
        generation=llm_pb2.Generation(model="m", location="l", usage=USAGE, hedges=2, queued_micros=1500, **generation),
        timings=router_pb2.Timings(analysis_micros=1, routing_micros=20, llm_micros=3_000_000),
    )


@pytest.mark.parametrize("cache", llm_pb2.CacheStatus.values())
@pytest.mark.parametrize("finish", llm_pb2.FinishReason.values())
def test_a_generation_comes_out_alike(cache, finish):
    ours, theirs = both(answer(cache=cache, finish_reason=finish, estimated_cost_usd=0.5))
    assert ours == theirs
    assert ours.timings == theirs.timings
    assert (ours.generation.usage.thinking_tokens, ours.generation.queued_ms) == (4, 1.5)
    assert ours.generation.estimated_cost_usd == 0.5


@pytest.mark.parametrize("history", router_pb2.HistoryStatus.values())
@pytest.mark.parametrize("read_by", router_pb2.ReadBy.values())
def test_the_rest_of_a_reply_comes_out_alike(history, read_by):
    response = answer()
    response.history, response.session_id = history, "talk"
    response.analysis.read_by = read_by
    ours, theirs = both(response)
    assert ours == theirs
    assert ours.session_id == "talk"
    assert ours.generation.estimated_cost_usd is None


@pytest.mark.parametrize("reason", reason_pb2.Reason.values())
def test_a_failure_comes_out_alike(reason):
    response = answer()
    response.ClearField("generation")
    response.fallback = True
    response.failure.CopyFrom(reason_pb2.Failure(reason=reason, retryable=True))
    ours, theirs = both(response)
    assert ours == theirs
    assert ours.failure.retryable


def test_a_reason_of_a_newer_service_has_its_number():
    response = answer()
    response.fallback = True
    response.failure.reason = 9999
    assert over_grpc.reply(response).failure.reason == "9999"
