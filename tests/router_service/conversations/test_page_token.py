"""Tokens of pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import InvalidField
from router_service.conversations.page_token import decode_token, encode_token

kinds = st.characters(codec="ascii")
places = st.lists(st.integers(min_value=0, max_value=2**63 - 1), min_size=1, max_size=3)


@given(kinds, places)
def test_token_tells_the_place_and_needs_no_escaping(kind: str, place: list[int]) -> None:
    token = encode_token(kind, place)
    assert decode_token(kind, token, len(place)) == tuple(place)
    assert all(character.isalnum() or character in "-_" for character in token)


@given(kinds, kinds, places)
def test_token_of_another_list_is_none(kind: str, other: str, place: list[int]) -> None:
    token = encode_token(kind, place)
    if kind != other:
        with pytest.raises(InvalidField):
            decode_token(other, token, len(place))
    with pytest.raises(InvalidField):
        decode_token(kind, token, len(place) + 1)


@given(st.text() | st.text("abcdefghijklmnopqrstuvwxyzABCDEFGH0123456789-_=", max_size=40))
def test_what_is_no_token_is_refused(text: str) -> None:
    try:
        place = decode_token("s", text, 2)
    except InvalidField:
        return
    assert encode_token("s", place) == text


def test_refusal_names_the_field() -> None:
    with pytest.raises(InvalidField) as caught:
        decode_token("s", "no token", 2)
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


def test_place_before_the_first_is_none() -> None:
    with pytest.raises(InvalidField):
        decode_token("o", encode_token("o", (-1,)), 1)
