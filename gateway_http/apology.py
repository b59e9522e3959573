"""The answer of last resort: what /chat says when the persona router cannot be reached in time."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Final

from msgspec import UNSET

from chassis import telemetry
from chassis.errors import IonError
from chassis.observability import metrics
from gateway_http import exchange, schemas
from gateway_http.event_stream import Event
from ion.error.v1.reason_pb2 import Reason

# Failures that mean "no answer in time" and not "a bad question": /chat apologises for these.
APOLOGISED: Final = (Reason.REASON_ROUTER_UNAVAILABLE, Reason.REASON_DEADLINE_EXCEEDED)
KEY: Final = "error-fallback-statement"
PERSONA: Final = "Nana"
KOREAN: Final = "죄송해요, 지금 서비스에 문제가 발생해서 답변을 드리지 못했어요. 잠시 후 다시 말씀해 주세요."
ENGLISH: Final = "I'm sorry, something went wrong and I could not answer just now. Please try again in a moment."
_HANGUL: Final = re.compile(r"[ㄱ-ㆎ가-힣]")


def reply(error: IonError, request: schemas.ChatRequest) -> schemas.ChatResponse:
    """Nana's apology, in Korean where the message has any Hangul."""
    metrics.count(telemetry.CHAT_FALLBACKS, {telemetry.ERROR_TYPE: error.reason_name})
    exchange.current().note_reply(PERSONA, "off", is_fallback=True)
    return schemas.ChatResponse(
        content=KOREAN if _HANGUL.search(request.message) else ENGLISH,
        persona_used=PERSONA,
        resonance_key=KEY,
        confidence=0.0,
        metadata=schemas.Metadata(
            history="skipped" if request.session_id else UNSET,
            fallback=True,
            error=schemas.Failure(error.reason_name, error.retryable),
        ),
        session_id=request.session_id or UNSET,
    )


async def events(error: IonError, request: schemas.ChatRequest) -> AsyncGenerator[Event, None]:
    """The same as a stream."""
    said = reply(error, request)
    who = (said.persona_used, said.resonance_key, said.confidence)
    yield Event("routing", schemas.RoutingEvent(*who, schemas.Metadata(), said.session_id))
    yield Event("delta", schemas.DeltaEvent(said.content))
    yield Event("done", schemas.DoneEvent(*who, said.metadata, schemas.Timings(0.0, 0.0, 0.0, 0.0), said.session_id))
