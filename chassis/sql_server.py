"""PostgreSQL through SQLAlchemy: how it is connected to, and left in time.

Importing this imports SQLAlchemy.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

CLOSE_SECONDS: Final = 0.1  # what is waited for a goodbye
LAST_SECONDS: Final = 2.0  # what it may take
_SQLALCHEMY_OWN: Final = {"ssl": "sslmode"}  # names in SQLAlchemy's URLs for what libpq's URLs call differently

_endings: set[asyncio.Task[None]] = set()  # nobody else holds them


def new_server_engine(
    url: str, options: dict[str, Any], *, connect_seconds: float, command_seconds: float | None
) -> AsyncEngine:
    connect_args = {
        "dsn": libpq_url(url),
        "timeout": connect_seconds,
        "command_timeout": command_seconds,
        "connection_class": _PromptConnection,
    }
    return create_async_engine("postgresql+asyncpg://", connect_args=connect_args, **options)


def libpq_url(url: str) -> str:
    """The URL as libpq and the driver read it. SQLAlchemy's own form names the driver, and some options otherwise."""
    parts = urlsplit(url)
    user, at, hosts = parts.netloc.rpartition("@")
    user = ":".join(quote(unquote(part), safe="") for part in user.split(":", 1))  # a bare @ is not the host's
    given = {_SQLALCHEMY_OWN.get(name, name): value for name, value in parse_qsl(parts.query)}
    query = {"application_name": "ion"} | given
    return urlunsplit(parts._replace(scheme="postgresql", netloc=f"{user}{at}{hosts}", query=urlencode(query)))


class _PromptConnection(asyncpg.Connection):  # type: ignore[misc]
    """One whose end is waited for only shortly: a server that hangs must not hold up who gives up on it."""

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the driver's own name
        ending = asyncio.create_task(self._end())
        _endings.add(ending)
        ending.add_done_callback(_endings.discard)
        await asyncio.wait((ending,), timeout=CLOSE_SECONDS)

    async def _end(self) -> None:
        """Tells the server to end what it still does for us, too, which takes another connection."""
        try:
            with suppress(Exception):  # it has ended, then
                async with asyncio.timeout(LAST_SECONDS):
                    await super().close()
        finally:
            self.terminate()
