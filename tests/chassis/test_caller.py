"""For whom a call is made, as it travels."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chassis import caller
from chassis.caller import NOBODY, Caller, OpenDoor, Shown, StreamedTokens, enter


@pytest.fixture(autouse=True)
def _shows_nothing():
    yield
    caller.show()


@example("a;b", "pro")
@given(st.text(), st.from_regex(r"[a-z0-9_-]{0,32}", fullmatch=True))
def test_a_caller_is_read_as_it_was_written(principal, tier):
    """Whatever is in the principal: tiers are names."""
    assert Caller.from_header(Caller(principal, tier).to_header()) == Caller(principal, tier)


def test_nobody_is_not_spoken_of():
    caller.enter(NOBODY)
    assert caller.outgoing_metadata() == ()


def test_a_service_shows_its_token_and_says_for_whom():
    caller.show(("x-ion-service-token", "secret"))
    caller.enter(NOBODY)
    assert caller.outgoing_metadata() == (("x-ion-service-token", "secret"),)
    caller.enter(Caller("key:abc", "pro"))
    assert caller.outgoing_metadata() == (("x-ion-caller", "key:abc;pro"), ("x-ion-service-token", "secret"))


async def test_tokens_of_a_call_are_counted_wherever_they_are_used():
    async def below() -> None:
        caller.note_tokens(3)

    meter = caller.enter(Caller("key:abc"))
    caller.note_tokens(4)
    await asyncio.gather(below(), below())
    assert meter.tokens == 10


async def test_calls_do_not_see_each_others_callers():
    async def call(principal: str) -> tuple[str, int]:
        meter = caller.enter(Caller(principal))
        await asyncio.sleep(0)
        caller.note_tokens(1)
        return caller.current().principal, meter.tokens

    assert await asyncio.gather(call("a"), call("b")) == [("a", 1), ("b", 1)]


def test_tokens_outside_a_call_are_nobodys():
    asyncio.run(_note())


async def _note() -> None:
    caller.note_tokens(5)


def test_what_is_shown_does_not_show_itself():
    assert "secret" not in repr(Shown("Bearer secret-one", "secret-two", "198.51.100.1"))


async def test_an_open_door_lets_everybody_in_as_nobody():
    door = OpenDoor()
    admitted = await door.admit(Shown("Bearer x", "y", "198.51.100.1"))
    assert (admitted.caller, dict(admitted.headers)) == (NOBODY, {})
    door.charge(Shown(), admitted, 5)


@pytest.mark.parametrize(
    ("texts", "told", "counted"), [(["four", "!"], 9, 9), (["four", "!"], None, 3), ([], None, 0), (["x"], 0, 0)]
)
def test_a_streamed_reply_costs_what_its_end_says_or_else_what_came_of_it(texts, told, counted):
    meter = enter(NOBODY)
    with StreamedTokens() as tokens:
        for text in texts:
            tokens.passed_on(text)
        if told is not None:
            tokens.told(told)
    assert meter.tokens == counted
