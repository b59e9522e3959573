"""The async transport over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import httpx
from httpx_sse import EventSource

from ion_client._asks import Ask, ExportAsk, StreamAsk
from ion_client._http.exchange import Lines, check, client_options, request_options, result, translated
from ion_client._http.messages import ENDPOINTS, Answer, parsed
from ion_client._retry import Deadline, Envelope

if TYPE_CHECKING:
    from ion_client._connect import Tls

T = TypeVar("T")


class AsyncHttpTransport:
    """See `AsyncTransport` in _async_client.py."""

    def __init__(self, base_url: str, tls: Tls | None) -> None:
        self._options = client_options(base_url, tls)

    @cached_property
    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._options)

    async def call(self, ask: Ask[T], envelope: Envelope) -> T:
        endpoint, deadline = ENDPOINTS[type(ask)], envelope.deadline
        with translated(deadline):
            async with _within(deadline):
                response = await self._http.request(**request_options(endpoint.request(ask), envelope))
        answer: T = result(endpoint, response)
        return answer

    async def stream(self, ask: StreamAsk[T], envelope: Envelope) -> AsyncGenerator[T, None]:
        endpoint, deadline = ENDPOINTS[type(ask)], envelope.deadline
        answers = _lines if isinstance(ask, ExportAsk) else _events
        with translated(deadline):
            response = await self._begun(
                envelope, self._http.build_request(**request_options(endpoint.request(ask), envelope))
            )
            try:
                async with aclosing(answers(response)) as coming:
                    while True:
                        async with _within(deadline):
                            answer = await anext(coming, None)
                        if answer is None:
                            return
                        if (part := endpoint.read(answer)) is not None:
                            yield part
            finally:
                await response.aclose()

    async def _begun(self, envelope: Envelope, request: httpx.Request) -> httpx.Response:
        """A response with success, whose body is still to come."""
        async with _within(envelope.deadline):
            response = await self._http.send(request, stream=True)
            try:
                if not response.is_success:
                    await response.aread()
                check(response)
            except BaseException:
                await response.aclose()
                raise
        return response

    async def close(self) -> None:
        await self._http.aclose()


async def _events(response: httpx.Response) -> AsyncGenerator[Answer, None]:
    async with aclosing(EventSource(response).aiter_sse()) as events:
        async for sent in events:
            yield Answer(parsed(sent.data), event=sent.event)


async def _lines(response: httpx.Response) -> AsyncGenerator[Answer, None]:
    lines = Lines()
    async for chunk in response.aiter_bytes():
        for line in lines.take(chunk):
            yield Answer(parsed(line))
    for line in lines.rest():
        yield Answer(parsed(line))


def _within(deadline: Deadline) -> asyncio.Timeout:
    """httpx bounds each step alone; this bounds the whole."""
    return asyncio.timeout(deadline.remaining_seconds())
