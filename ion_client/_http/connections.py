"""Which connection a sync exchange has, before httpx tells: that is only with the head of the answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from ion_client._http.exchange import SHORTEST_SECONDS
from ion_client._retry import Deadline

Tell = Callable[[socket.socket], None]

_OPENED: Final = (".connect_tcp.complete", ".start_tls.complete")


class Connections:
    """Those of one client. An exchange sends its request in one thread, whichever connection it is given."""

    def __init__(self) -> None:
        self._here = threading.local()

    @contextmanager
    def told_to(self, tell: Tell) -> Iterator[None]:
        """What this thread sends within the block, it is told by which connection."""
        self._here.tell = tell
        try:
            yield
        finally:
            self._here.tell = None

    def trace(self, deadline: Deadline) -> Callable[[str, Any], None]:
        """For the extension `trace` of a request, which may open a connection."""

        def note(event: str, info: dict[str, Any]) -> None:
            if event.endswith(_OPENED):
                self._note(info["return_value"])
            elif "timeout" in info:  # of a step that has it for itself, and cannot be cut off: the TLS handshake
                info["timeout"] = max(SHORTEST_SECONDS, deadline.remaining_seconds())

        return note

    def _note(self, stream: Any) -> None:
        """No event says which connection is used again, but each exchange begins with a write."""
        connection, write = stream.get_extra_info("socket"), stream.write

        def telling(buffer: bytes, timeout: float | None = None) -> None:
            self._tell(connection)
            write(buffer, timeout)

        stream.write = telling
        self._tell(connection)

    def _tell(self, connection: socket.socket) -> None:
        if tell := getattr(self._here, "tell", None):
            tell(connection)
