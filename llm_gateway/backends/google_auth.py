"""Who calls Vertex: Google's credentials and the metadata that proves them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final

import google.auth
import google.auth.transport.requests
from google.auth.credentials import Credentials, TokenState
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.cloud.aiplatform_v1.services.prediction_service.transports.base import PredictionServiceTransport

from chassis.errors import DeadlineExceeded
from llm_gateway.generation import ModelCredentials, ModelUnavailable

_CREDENTIALS_SECONDS: Final = 20.0

Metadata = tuple[tuple[str, str], ...]


class Authorization:
    """The metadata that proves who calls: none without credentials.

    Google's gRPC plugin would do this too, but it starts a thread for each call (220 µs, measured) and turns an
    expired login and an unreachable token server into the same status.
    """

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials
        self._transport = google.auth.transport.requests.Request()
        self._renewal: asyncio.Task[None] | None = None

    async def metadata(self, *, timeout_seconds: float) -> Metadata:
        """Waits only where there is no valid token; one that is about to expire is renewed in the background.
        Raises ModelCredentials where Google refuses, ModelUnavailable where it cannot be asked, DeadlineExceeded."""
        if self._credentials is None:
            return ()
        state = self._credentials.token_state
        if state is not TokenState.FRESH:
            renewal = self._renew(self._credentials)
            if state is TokenState.INVALID:
                await _wait_for_renewal(renewal, timeout_seconds)
        headers: dict[str, str] = {}
        self._credentials.apply(headers)  # type: ignore[no-untyped-call]
        return tuple(headers.items())

    def _renew(self, credentials: Credentials) -> asyncio.Task[None]:
        """The renewal under way, shared by all who need it: google-auth asks by blocking HTTP, so in a thread."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(asyncio.to_thread(credentials.refresh, self._transport))
            self._renewal.add_done_callback(lambda renewal: renewal.cancelled() or renewal.exception())
        return self._renewal


async def _wait_for_renewal(renewal: asyncio.Task[None], timeout_seconds: float) -> None:
    try:
        async with asyncio.timeout(timeout_seconds):
            await asyncio.shield(renewal)
    except TimeoutError as error:
        raise DeadlineExceeded from error
    except TransportError as error:
        raise ModelUnavailable from error
    except GoogleAuthError as error:
        raise (ModelUnavailable if error.retryable else ModelCredentials)() from error


async def find_credentials() -> Credentials:
    """Application Default Credentials. Raises ValueError, one line saying what to set, where there are none."""
    find = partial(google.auth.default, scopes=PredictionServiceTransport.AUTH_SCOPES)
    try:
        # Reads files, and on Google's machines asks the metadata server.
        credentials, _ = await asyncio.wait_for(asyncio.to_thread(find), _CREDENTIALS_SECONDS)
    except (DefaultCredentialsError, TimeoutError) as error:
        raise ValueError(
            "no Google credentials for Vertex: set GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth "
            "application-default login`, or set ION_VERTEX_INSECURE=1 for an emulator"
        ) from error
    return credentials
