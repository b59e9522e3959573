"""Wire to domain and back."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidField
from ion.llm.v1 import llm_pb2
from llm_gateway.flights import CacheStatus, Completed
from llm_gateway.generation import Role, Usage
from llm_gateway.translation import generation_of, read_request, response_of
from tests.llm_gateway.scripted_backend import reply


def test_a_stream_is_asked_for_as_a_reply_is():
    """The same fields under the same numbers: one may be sent where the other is meant."""
    unary, streamed = (
        [(field.number, field.name, field.type) for field in message.DESCRIPTOR.fields]
        for message in (llm_pb2.GenerateRequest, llm_pb2.StreamGenerateRequest)
    )
    assert unary == streamed


@pytest.mark.parametrize("status", CacheStatus)
def test_each_cache_status_has_its_name_in_the_contract(status):
    generation = response_of(Completed(reply(), status), None).generation
    assert llm_pb2.CacheStatus.Name(generation.cache) == f"CACHE_STATUS_{status.name}"


def test_how_a_reply_came_about():
    completed = Completed(
        reply(),
        CacheStatus.MISS,
        attempts=3,
        hedges=1,
        lost_usage=Usage(11, 2),
        queued_seconds=0.25,
        first_token_seconds=0.5,
        trimmed_turns=4,
        age_seconds=6.6,
    )
    generation = generation_of(completed, 0.125)
    assert (generation.attempts, generation.hedges, generation.trimmed_turns) == (3, 1, 4)
    assert (generation.lost_usage.input_tokens, generation.lost_usage.output_tokens) == (11, 2)
    assert (generation.queued_micros, generation.time_to_first_token_micros) == (250_000, 500_000)
    assert (generation.age_seconds, generation.estimated_cost_usd, generation.complete) == (7, 0.125, True)


wire_requests = st.builds(
    llm_pb2.GenerateRequest,
    model=st.text(max_size=200),
    prompt=st.builds(
        llm_pb2.Prompt,
        system_instruction=st.text(max_size=5),
        contents=st.lists(
            st.builds(
                llm_pb2.Content, role=st.integers(-(2**31), 2**31 - 1) | st.integers(0, 2), text=st.text(max_size=3)
            ),
            max_size=3,
        ),
    ),
    parameters=st.builds(
        llm_pb2.GenerationParameters,
        temperature=st.none() | st.floats(width=32),
        top_p=st.none() | st.floats(width=32),
        max_output_tokens=st.integers(-(2**31), 2**31 - 1),
        stop_sequences=st.lists(st.text(max_size=70), max_size=6),
        response_json_schema=st.text(alphabet='{}[]":, a1', max_size=9) | st.text(max_size=5),
    ),
    scope=st.text(max_size=300),
)


@given(wire_requests)
def test_any_request_is_read_or_refused_with_a_field(request):
    with suppress(InvalidField):
        read = read_request(request, "model-a")
        assert read.model
        assert read.prompt.turns[-1].role is Role.USER


@pytest.mark.parametrize(
    ("principal", "scope", "turns", "stored_as"),
    [
        ("", "", 1, ""),
        ("", "team", 2, "team"),
        ("key:abc", "", 1, "key:abc/"),
        ("key:abc", "team", 3, "key:abc/team"),
        ("key:abc", "", 3, ""),  # of a conversation without a scope nothing is kept
    ],
)
def test_each_principal_has_scopes_of_its_own(principal, scope, turns, stored_as):
    contents = [llm_pb2.Content(role=llm_pb2.ROLE_USER, text="hi")] * turns
    request = llm_pb2.GenerateRequest(prompt=llm_pb2.Prompt(contents=contents), scope=scope)
    assert read_request(request, "model-a", principal).scope == stored_as
