"""Compressed answers: zstd, br or gzip, where the client takes one of them and the answer is large enough to gain."""

from __future__ import annotations

from typing import Any, Final

from litestar.types import Receive, Send
from starlette_compress import CompressMiddleware, add_compress_type, remove_compress_type

from gateway_http import event_stream

MINIMUM_BYTES: Final = 1024


class Compressing:
    """Wraps the application. Requests that take no encoding pass by it at no cost."""

    def __init__(self, app: Any) -> None:
        # Each event is to be there at once, whatever stands between here and its reader.
        remove_compress_type(event_stream.MEDIA_TYPE)
        add_compress_type("application/x-ndjson")
        self._app = app
        self._compressing: Any = CompressMiddleware(app, minimum_size=MINIMUM_BYTES)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        wanted = scope["method"] != "HEAD" and any(name == b"accept-encoding" for name, _ in scope["headers"])
        await (self._compressing if wanted else self._app)(scope, receive, send)
