"""What sync and async exchanges have in common."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import httpx

from ion_client._http.errors import from_answer, from_exchange
from ion_client._http.messages import Answer, Endpoint, Request, parsed
from ion_client._retry import Deadline, Envelope

if TYPE_CHECKING:
    from ion_client._connect import Tls

_HEADERS: Final = {"accept": "application/json", "user-agent": "ion-client"}
# Of a timeout.
SHORTEST_SECONDS: Final = 0.001


def client_options(base_url: str, tls: Tls | None) -> dict[str, Any]:
    """Connections are not limited in number: a call would wait for those of long streams."""
    return {
        "base_url": base_url,
        "headers": _HEADERS,
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=100),
        "verify": _context(tls) if tls else True,
    }


def request_options(request: Request, envelope: Envelope) -> dict[str, Any]:
    """httpx bounds single steps, not the whole: none may take longer than what is left now."""
    remaining = max(SHORTEST_SECONDS, envelope.deadline.remaining_seconds())
    return {
        "method": request.method,
        "url": request.path,
        "params": request.params,
        "headers": {**envelope.headers, "x-request-timeout": f"{remaining:.3f}", **request.headers},
        "json": request.json,
        "timeout": httpx.Timeout(remaining),
    }


def check(response: httpx.Response) -> None:
    """The body of a response without success must have been read. Raises IonClientError for those."""
    if not response.is_success:
        raise from_answer(response.status_code, response.headers, response.content)


def result(endpoint: Endpoint, response: httpx.Response) -> Any:
    check(response)
    body = parsed(response.content) if response.content else None
    return endpoint.read(Answer(body, response.headers))


@contextmanager
def translated(deadline: Deadline) -> Iterator[None]:
    """Failures of the exchange as this client's."""
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError, TimeoutError) as error:
        raise from_exchange(error, deadline) from error


class Lines:
    """Bytes to lines. Only a line feed ends one: JSON may have the other separators inside its texts."""

    def __init__(self) -> None:
        self._begun = b""

    def take(self, chunk: bytes) -> list[bytes]:
        """The lines that the chunk completes, without empty ones."""
        *complete, self._begun = (self._begun + chunk).split(b"\n")
        return [line for line in complete if line.strip()]

    def rest(self) -> list[bytes]:
        """What the end of the stream completes."""
        return self.take(b"\n")


def _context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls.ca_file)
    if tls.certificate_file:
        context.load_cert_chain(tls.certificate_file, tls.key_file)
    return context
