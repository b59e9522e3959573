"""What of a message is read."""

from __future__ import annotations

import pytest

from chassis.deadline import Deadline
from ion.router.v1 import router_pb2
from router_service.analysis import Reader
from router_service.reading import Readings, excerpt, reading_of_key, reading_of_message
from router_service.second_opinion import NoSecondOpinion

READER = Reader.load()
PASTED = "log line, nothing to see here. " * 3000


def of(message: str):
    return Readings(READER, NoSecondOpinion()).of_message(message, "", Deadline.after(10))


@pytest.mark.parametrize(("length", "read"), [(1, 1), (1000, 1000), (1001, 1000), (100_000, 1000)])
async def test_it_says_how_many_characters_were_read(length, read):
    assert (await of("x" * length)).characters_read == read


def test_of_a_long_message_its_ends_are_read():
    assert excerpt("a" * 500 + "b" * 500) == "a" * 500 + "b" * 500
    assert excerpt("a" * 500 + "x" * 9000 + "b" * 500) == "a" * 500 + "\n" + "b" * 500


@pytest.mark.parametrize("where", ["before", "after"])
async def test_what_somebody_says_around_a_long_paste_is_read(where):
    said = "진짜 짜증나!! 왜 계속 안 돼!! 몇 번을 해도 안 되잖아 진짜 열받아!! " * 12
    reading = await of(said + PASTED if where == "before" else PASTED + said)
    assert reading.analysis.tone.primary == "frustrated"
    assert reading.characters_read == 1000


async def test_a_reading_is_the_same_whoever_asks_for_it():
    message = "what is the plan for tomorrow?"
    assert reading_of_message(READER.read(message), message) == await of(message)


def test_of_a_key_nothing_was_read():
    reading = reading_of_key("calm-medium-inquiry", previous="Lua")
    assert (reading.characters_read, reading.read_by) == (0, router_pb2.READ_BY_UNSPECIFIED)
    assert reading.signals.previous == "Lua"


class CountingReader(Reader):
    """Says how often it has read."""

    reads = 0

    def read(self, message: str, evidence: int = 0):
        self.reads += 1
        return super().read(message, evidence)


async def test_a_message_that_comes_again_is_not_read_again():
    reader = CountingReader.load()
    readings = Readings(reader, NoSecondOpinion())
    first = await readings.of_message("what is the plan?", "", Deadline.after(10))
    assert await readings.of_message("what is the plan?", "", Deadline.after(10)) == first
    assert reader.reads == 1
    explained = await readings.of_message("what is the plan?", "", Deadline.after(10), evidence=3)
    assert explained.analysis.evidence
    assert reader.reads == 2


async def test_it_remembers_no_more_than_it_says(monkeypatch):
    monkeypatch.setattr("router_service.reading.REMEMBERED", 2)
    reader = CountingReader.load()
    readings = Readings(reader, NoSecondOpinion())
    for message in ("one", "two", "three", "one"):
        await readings.of_message(message, "", Deadline.after(10))
    assert reader.reads == 4
