"""The sync transport over HTTP."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import httpx
from httpx_sse import EventSource

from ion_client._asks import Ask, ExportAsk, StreamAsk
from ion_client._http.exchange import Lines, check, client_options, request_options, result, translated
from ion_client._http.messages import ENDPOINTS, Answer, parsed
from ion_client._retry import Deadline, Envelope
from ion_client.errors import deadline_exceeded

if TYPE_CHECKING:
    from ion_client._connect import Tls

T = TypeVar("T")


class HttpTransport:
    """See `Transport` in _client.py."""

    def __init__(self, base_url: str, tls: Tls | None) -> None:
        self._http = httpx.Client(**client_options(base_url, tls))
        self._streaming: set[socket.socket] = set()

    def call(self, ask: Ask[T], envelope: Envelope) -> T:
        endpoint = ENDPOINTS[type(ask)]
        with translated(envelope.deadline):
            response = self._http.request(**request_options(endpoint.request(ask), envelope))
        answer: T = result(endpoint, response)
        return answer

    def stream(self, ask: StreamAsk[T], envelope: Envelope) -> Generator[T, None, None]:
        endpoint = ENDPOINTS[type(ask)]
        deadline = envelope.deadline
        answers = _lines if isinstance(ask, ExportAsk) else _events
        with (
            translated(deadline),
            self._http.stream(**request_options(endpoint.request(ask), envelope)) as response,
            self._kept_in_hand(response) as connection,
            _cut_off_at(deadline, connection),
        ):
            if not response.is_success:
                response.read()
            check(response)
            for answer in answers(response):
                if (part := endpoint.read(answer)) is not None:
                    yield part

    def close(self) -> None:
        """Streams in other threads end at once, which httpx alone would not notice before something comes."""
        for connection in list(self._streaming):
            _shut(connection)
        self._http.close()

    @contextmanager
    def _kept_in_hand(self, response: httpx.Response) -> Iterator[socket.socket]:
        connection: socket.socket = response.extensions["network_stream"].get_extra_info("socket")
        self._streaming.add(connection)
        try:
            yield connection
        finally:
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


@contextmanager
def _cut_off_at(deadline: Deadline, connection: socket.socket) -> Iterator[None]:
    """Ends the connection at the deadline. httpx bounds each read alone: a body that comes in drops could go on for
    ever, and one that stalls late for nearly as long again. Raises DeadlineExceeded also where the body, which has no
    length of its own then, just seems to be over."""
    cut = threading.Event()

    def cut_off() -> None:
        cut.set()
        _shut(connection)

    watch = threading.Timer(deadline.remaining_seconds(), cut_off)
    watch.daemon = True
    watch.start()
    try:
        yield
        if cut.is_set():
            raise deadline_exceeded()
    finally:
        watch.cancel()


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # it has ended meanwhile
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # of TLS too, without its farewell
