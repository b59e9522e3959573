"""The sync transport over HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from httpx_sse import EventSource

from ion_client._asks import Ask, ExportAsk, StreamAsk
from ion_client._http.connections import Connections
from ion_client._http.exchange import Lines, check, client_options, request_options, result, translated
from ion_client._http.messages import ENDPOINTS, Answer, Endpoint, parsed
from ion_client._http.watchdog import Watch, Watchdog, shut
from ion_client._retry import Envelope
from ion_client.errors import client_closed

if TYPE_CHECKING:
    from ion_client._connect import Tls

T = TypeVar("T")


class HttpTransport:
    """See `Transport` in _client.py."""

    def __init__(self, base_url: str, tls: Tls | None) -> None:
        self._http = httpx.Client(**client_options(base_url, tls))
        self._watchdog = Watchdog()
        self._connections = Connections()
        self._lock = threading.Lock()
        self._under_way = 0
        self._streaming: set[socket.socket] = set()
        self._closing = False

    def call(self, ask: Ask[T], envelope: Envelope) -> T:
        endpoint = ENDPOINTS[type(ask)]
        with self._exchange(endpoint, ask, envelope) as (response, _):
            response.read()
        answer: T = result(endpoint, response)
        return answer

    def stream(self, ask: StreamAsk[T], envelope: Envelope) -> Generator[T, None, None]:
        endpoint = ENDPOINTS[type(ask)]
        answers = _lines if isinstance(ask, ExportAsk) else _events
        with self._exchange(endpoint, ask, envelope) as (response, connection), self._ended_by_close(connection):
            if not response.is_success:
                response.read()
            check(response)
            for answer in answers(response):
                if (part := endpoint.read(answer)) is not None:
                    yield part

    def close(self) -> None:
        """Streams in other threads end at once; other calls there, which httpx cannot end, still get their answer."""
        with self._lock:
            self._closing = True
            for connection in self._streaming:
                shut(connection)
            idle = not self._under_way
        if idle:
            self._end()

    @contextmanager
    def _exchange(
        self, endpoint: Endpoint, ask: Any, envelope: Envelope
    ) -> Iterator[tuple[httpx.Response, socket.socket]]:
        """One exchange up to the beginning of its answer, and the connection it has."""
        options = request_options(endpoint.request(ask), envelope)
        with (
            self._counted(),
            translated(envelope.deadline),
            self._watchdog.until(envelope.deadline) as watch,
            closing(self._begun(options, envelope, watch)) as response,
        ):
            connection = response.extensions["network_stream"].get_extra_info("socket")
            watch.move_to(connection)
            yield response, connection

    def _begun(self, options: dict[str, Any], envelope: Envelope, watch: Watch) -> httpx.Response:
        trace = self._connections.trace(envelope.deadline)
        request = self._http.build_request(**options, extensions={"trace": trace})
        with self._connections.told_to(watch.move_to):
            return self._http.send(request, stream=True)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """A connection closed under a thread that reads from it might be another one by the time that it reads: whoever
        is last closes them."""
        with self._lock:
            if self._closing:
                raise client_closed()
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                last = self._closing and not self._under_way
            if last:
                self._end()

    def _end(self) -> None:
        self._http.close()
        self._watchdog.close()

    @contextmanager
    def _ended_by_close(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._streaming.add(connection)
            if self._closing:
                shut(connection)
        try:
            yield
        finally:
            with self._lock:
                self._streaming.discard(connection)


def _events(response: httpx.Response) -> Iterator[Answer]:
    for sent in EventSource(response).iter_sse():
        yield Answer(parsed(sent.data), event=sent.event)


def _lines(response: httpx.Response) -> Iterator[Answer]:
    lines = Lines()
    for chunk in response.iter_bytes():
        for line in lines.take(chunk):
            yield Answer(parsed(line))
    for line in lines.rest():
        yield Answer(parsed(line))
