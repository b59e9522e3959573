"""A shared call and its text: what comes together, what is replayed, and who may leave."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.deadline import Deadline
from chassis.errors import DeadlineExceeded
from llm_gateway.flights import CacheStatus, Completed, Flight, in_pieces
from llm_gateway.generation import ModelInterrupted
from tests.llm_gateway.scripted_backend import nothing_left_behind, reply, soon, until  # noqa: F401


def completed(text: str) -> Completed:
    return Completed(reply(text), CacheStatus.MISS)


class Flown:
    """A flight whose call ends as the test says."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Completed] = asyncio.get_running_loop().create_future()
        self.landings = 0
        self.flight = Flight(soon(), self._count_landing)
        self.flight.start(self._make)
        self.was_cancelled = False

    async def _make(self) -> Completed:
        try:
            return await self.outcome
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise

    def _count_landing(self) -> None:
        self.landings += 1

    def read(self, deadline: Deadline | None = None) -> Read:
        return Read(self.flight, deadline or soon())


class Read:
    """One who reads the stream."""

    def __init__(self, flight: Flight, deadline: Deadline) -> None:
        self.items: list[str | Completed] = []
        self.task = asyncio.create_task(self._read(flight, deadline))

    async def _read(self, flight: Flight, deadline: Deadline) -> None:
        async with aclosing(flight.stream(deadline)) as items:
            async for item in items:
                self.items.append(item)

    async def has(self, *items: str | Completed) -> None:
        await until(lambda: self.items == list(items))


async def test_text_comes_as_it_is_published_then_how_it_came_about():
    flown = Flown()
    reader = flown.read()
    await asyncio.sleep(0)
    assert flown.flight.wants_text
    flown.flight.publish("One ")
    await reader.has("One ")
    flown.flight.publish("two")
    await reader.has("One ", "two")
    assert not reader.task.done()
    flown.outcome.set_result(completed("One two"))
    await reader.has("One ", "two", completed("One two"))
    await reader.task
    assert flown.landings >= 1


async def test_pieces_of_one_turn_travel_together():
    flown = Flown()
    reader = flown.read()
    await asyncio.sleep(0)
    for text in ("a", "b", "c"):
        flown.flight.publish(text)
    await reader.has("abc")
    flown.outcome.set_result(completed("abc"))
    await reader.task


async def test_pieces_that_follow_shortly_wait_for_each_other(monkeypatch):
    monkeypatch.setattr("llm_gateway.flights.MERGE_SECONDS", 60.0)
    flown = Flown()
    reader = flown.read()
    flown.flight.publish("first")
    await reader.has("first")  # at once
    for text in ("a", "b"):
        flown.flight.publish(text)
        await asyncio.sleep(0.001)
    assert reader.items == ["first"]
    flown.outcome.set_result(completed("firstab"))  # nothing is held back once it is over
    await reader.has("first", "ab", completed("firstab"))
    await reader.task


async def test_who_comes_late_has_all_so_far_and_then_what_comes():
    flown = Flown()
    early = flown.read()
    flown.flight.publish("One ")
    await early.has("One ")
    flown.flight.publish("two ")
    await early.has("One ", "two ")
    late = flown.read()
    await late.has("One two ")
    flown.flight.publish("three")
    flown.outcome.set_result(completed("One two three"))
    await asyncio.gather(early.task, late.task)
    assert late.items == ["One two ", "three", completed("One two three")]


async def test_a_reply_without_published_text_comes_in_pieces():
    flown = Flown()
    reader = flown.read()
    text = "Some words. " * 100
    flown.outcome.set_result(completed(text))
    await reader.task
    *pieces, last = reader.items
    assert len(pieces) > 1
    assert "".join(pieces) == text
    assert last == completed(text)


async def test_unary_and_streaming_callers_share_one_call():
    flown = Flown()
    unary, reader = asyncio.create_task(flown.flight.join(soon())), flown.read()
    flown.flight.publish("Hi")
    flown.outcome.set_result(completed("Hi"))
    assert await unary == completed("Hi")
    await reader.has("Hi", completed("Hi"))
    await reader.task


async def test_a_failure_comes_after_the_text():
    flown = Flown()
    reader = flown.read()
    flown.flight.publish("Half ")
    flown.outcome.set_exception(ModelInterrupted())
    with pytest.raises(ModelInterrupted):
        await reader.task
    assert reader.items == ["Half "]


async def test_one_that_waits_for_text_waits_no_longer_than_its_deadline():
    flown = Flown()
    patient, hasty = flown.read(), flown.read(Deadline.after(0.03))
    flown.flight.publish("Half ")
    with pytest.raises(DeadlineExceeded):
        await hasty.task
    assert (hasty.items, flown.was_cancelled) == (["Half "], False)
    flown.outcome.set_result(completed("Half "))
    await patient.task


async def test_one_whose_text_keeps_coming_ends_with_its_deadline_too():
    flown, deadline = Flown(), Deadline.after(0.05)
    patient = flown.read()

    async def read_on() -> None:
        async for _ in flown.flight.stream(deadline):
            flown.flight.publish("more ")

    flown.flight.publish("more ")
    with pytest.raises(DeadlineExceeded):
        await asyncio.wait_for(read_on(), 5)
    flown.outcome.set_result(completed("more "))
    await patient.task


async def test_a_reader_that_closes_early_leaves_the_call_to_the_others():
    flown = Flown()
    other = flown.read()
    flown.flight.publish("One ")
    await other.has("One ")
    async with aclosing(flown.flight.stream(soon())) as items:
        assert await anext(items) == "One "
    flown.flight.publish("two")
    flown.outcome.set_result(completed("One two"))
    await other.task
    assert other.items[-1] == completed("One two")


async def test_the_last_reader_that_closes_cancels_the_call():
    flown = Flown()
    await asyncio.sleep(0)
    flown.flight.publish("One ")
    async with aclosing(flown.flight.stream(soon())) as items:
        assert await anext(items) == "One "
    assert flown.landings == 1  # nobody may join it from now on
    await until(lambda: flown.was_cancelled)


async def test_a_reader_that_is_cancelled_while_it_waits_cancels_the_call():
    flown = Flown()
    reader = flown.read()
    flown.flight.publish("One ")
    await reader.has("One ")
    reader.task.cancel()
    await asyncio.wait((reader.task,))
    assert reader.task.cancelled()
    await until(lambda: flown.was_cancelled)


texts = st.text(st.sampled_from("abc \n\u3000한국😀"), max_size=2000) | st.text(max_size=2000)


@given(texts)
def test_pieces_are_the_text_again(text):
    pieces = list(in_pieces(text))
    assert "".join(pieces) == text
    assert all(1 <= len(piece) <= 256 for piece in pieces)


def test_pieces_end_after_white_space_where_there_is_any():
    pieces = list(in_pieces("word " * 200))
    assert len(pieces) == 4
    assert all(piece.endswith(" ") for piece in pieces)
