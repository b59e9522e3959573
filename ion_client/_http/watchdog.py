"""Ends the connections of sync calls at their deadlines.

httpx bounds each step alone: an answer that comes in drops could go on for ever, and one that stalls late for nearly
as long again.
"""

from __future__ import annotations

import heapq
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ion_client._retry import Deadline
from ion_client.errors import deadline_exceeded


@dataclass(order=True, slots=True)
class Watch:
    """Of one exchange."""

    at: float
    connection: socket.socket | None = field(default=None, compare=False)
    cut: bool = field(default=False, compare=False)
    ended: bool = field(default=False, compare=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False, repr=False)

    def move_to(self, connection: socket.socket) -> None:
        """The connection that the exchange has from now on."""
        with self._lock:
            self.connection = connection
            if self.cut:
                shut(connection)

    def cut_off(self) -> None:
        with self._lock:
            if self.ended:
                return
            self.cut = True
            if self.connection is not None:
                shut(self.connection)

    def end(self) -> None:
        with self._lock:
            self.ended, self.connection = True, None


class Watchdog:
    """One thread for all calls of a client: one a call would cost as much as half the call."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watches: list[Watch] = []  # a heap
        self._running = False
        self._closed = False

    @contextmanager
    def until(self, deadline: Deadline) -> Iterator[Watch]:
        """Raises DeadlineExceeded also where a body that was cut off just seems to be over, for want of a length."""
        watch = Watch(time.monotonic() + deadline.remaining_seconds())
        self._add(watch)
        try:
            yield watch
            if watch.cut:
                raise deadline_exceeded()
        finally:
            watch.end()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _add(self, watch: Watch) -> None:
        with self._changed:
            self._drop_ended()
            heapq.heappush(self._watches, watch)
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="ion-client-deadlines", daemon=True).start()
            elif self._watches[0] is watch:
                self._changed.notify()

    def _run(self) -> None:
        with self._changed:
            while not self._closed:
                self._cut_off_late_ones()
                self._changed.wait(self._watches[0].at - time.monotonic() if self._watches else None)

    def _cut_off_late_ones(self) -> None:
        while self._watches and self._watches[0].at <= time.monotonic():
            heapq.heappop(self._watches).cut_off()

    def _drop_ended(self) -> None:
        while self._watches and self._watches[0].ended:
            heapq.heappop(self._watches)


def shut(connection: socket.socket) -> None:
    """Whoever reads from it reads its end."""
    with suppress(OSError):  # it has ended meanwhile
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # of TLS too, without its farewell
