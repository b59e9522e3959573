"""Whose a session is."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from chassis.caller import Caller, enter
from router_service.conversations.owner import current_owner, owner_of

PAIRS = st.tuples(st.text(max_size=8), st.text(max_size=8))


@given(PAIRS, PAIRS)
def test_two_owners_are_the_same_only_where_principal_and_user_are(one, other):
    assert (owner_of(*one) == owner_of(*other)) == (one == other)


def test_no_two_pairs_run_together():
    assert owner_of("key:a", "b") != owner_of("key:", "ab") != owner_of("", "key:ab")


def test_an_owner_is_a_digest_that_names_nobody():
    assert re.fullmatch("[0-9a-f]{64}", owner_of("key:1", "mina@example.org"))


async def test_the_current_owner_is_of_the_caller():
    enter(Caller("key:1", "free"))
    assert current_owner("mina") == owner_of("key:1", "mina")
