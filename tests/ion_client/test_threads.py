"""One sync client for many threads."""

from __future__ import annotations

import asyncio

import pytest

import ion_client


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_sync_client_serves_many_threads_at_once(chain, vertex, unique, transport):
    url = f"grpc://{chain.router}" if transport == "grpc" else chain.url
    vertex.answer(lambda request: f"answer to {request.contents[-1].parts[0].text}")
    messages = [unique("Is it done?") for _ in range(24)]
    with ion_client.connect(url) as ion:

        def ask(number: int) -> str:
            if number % 2:
                return ion.chat(messages[number]).text
            with ion.stream(messages[number]) as stream:
                return stream.read().text

        texts = await asyncio.gather(*(asyncio.to_thread(ask, number) for number in range(len(messages))))
    assert texts == [f"answer to {message}" for message in messages]
