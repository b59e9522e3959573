"""Server-sent events, frame by frame."""

from __future__ import annotations

import json

import pytest
from httpx_sse._decoders import SSEDecoder
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import IonError
from gateway_http.chat import STREAM
from gateway_http.event_stream import Event, event_stream, frame
from gateway_http.schemas import DeltaEvent
from ion.error.v1.reason_pb2 import Reason

texts = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("event", "written"),
    [
        (Event("delta", DeltaEvent("a\nb")), b'event: delta\ndata: {"text":"a\\nb"}\n\n'),
        (Event("", b"[DONE]"), b"data: [DONE]\n\n"),
        (Event("x", b"1"), b"event: x\ndata: 1\n\n"),
    ],
)
def test_an_event_is_a_frame(event, written):
    assert frame(event) == written


@given(texts)
def test_a_reader_gets_back_any_text(text):
    decoder = SSEDecoder()
    lines = frame(Event("delta", DeltaEvent(text))).decode().split("\n")[:-1]
    (event,) = [event for event in map(decoder.decode, lines) if event]
    assert (event.event, json.loads(event.data)) == ("delta", {"text": text})


def test_a_failure_is_the_event_that_was_asked_for():
    how = event_stream(lambda error: Event("error", error.reason_name))
    assert how.failed(IonError(Reason.REASON_INTERNAL)) == b'event: error\ndata: "INTERNAL"\n\n'


def test_silence_is_filled_every_15_seconds():
    assert (STREAM.heartbeat, STREAM.silence_seconds) == (b": keep-alive\n\n", 15)
