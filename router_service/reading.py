"""What was read from what a caller asked, and whom it was read by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from chassis.deadline import Deadline
from ion.router.v1 import router_pb2
from router_service.analysis import Analysis, Intent, Reader, Rhythm, Tone
from router_service.routing import Signals, parse_key, signals_of
from router_service.second_opinion import SecondOpinion, revised

MAX_READ_CHARACTERS: Final = 1000
_END_CHARACTERS: Final = MAX_READ_CHARACTERS // 2
# As many as replies by default: reading a message is half of what its cached reply costs.
REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read: what the choice rests on, and what is told of it. Of a key `read_by` is nobody, and 0 characters
    were read."""

    signals: Signals
    analysis: Analysis
    read_by: router_pb2.ReadBy.ValueType = router_pb2.READ_BY_UNSPECIFIED
    characters_read: int = 0


class Readings:
    """Reads messages, with a second opinion where one is needed and to be had."""

    def __init__(self, reader: Reader, second_opinion: SecondOpinion) -> None:
        self.reader = reader
        self._read = lru_cache(REMEMBERED)(reader.read)
        self._second_opinion = second_opinion

    async def of_message(self, message: str, previous: str, deadline: Deadline, evidence: int = 0) -> Reading:
        """With so many words behind the tone. A long message is read at its ends: see `excerpt`."""
        text = excerpt(message)
        analysis, read_by = self._read(text, evidence), router_pb2.READ_BY_READER
        opinion = await self._second_opinion.on(text, analysis, deadline)
        if opinion is not None:
            analysis, read_by = revised(analysis, opinion, text, self.reader), router_pb2.READ_BY_MODEL
        characters = min(len(message), MAX_READ_CHARACTERS)
        return Reading(signals_of(analysis, text, previous=previous), analysis, read_by, characters)


def excerpt(message: str) -> str:
    """The message, or the first and last 500 characters of one with more than 1000: how somebody begins and ends says
    what they want, and what is pasted between does not."""
    if len(message) <= MAX_READ_CHARACTERS:
        return message
    return f"{message[:_END_CHARACTERS]}\n{message[-_END_CHARACTERS:]}"


def reading_of_message(analysis: Analysis, message: str, *, previous: str = "") -> Reading:
    """Of a message of at most 1000 characters, by the reader alone."""
    signals = signals_of(analysis, message, previous=previous)
    return Reading(signals, analysis, router_pb2.READ_BY_READER, len(message))


def reading_of_key(key: str, *, previous: str = "") -> Reading:
    signals = parse_key(key, previous=previous)
    return Reading(signals, _analysis_of_key(signals))


def _analysis_of_key(signals: Signals) -> Analysis:
    """What a key says is certain, but for the parts that fell back."""
    certain = {part: float(part not in signals.defaulted_parts) for part in ("tone", "pace", "intent")}
    return Analysis(
        tone=Tone(signals.tone, certain["tone"], ""),
        intent=Intent(signals.intent, certain["intent"]),
        rhythm=Rhythm(signals.pace, 0.0, 0.0, certain["pace"]),
        topics=(),
        language="",
    )
