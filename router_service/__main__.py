"""`python -m router_service`: the persona router as a process of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chassis.access import require_proof
from chassis.channel import open_channel
from chassis.database import Database
from chassis.server import Hosted, run
from chassis.settings import load
from chassis.transport import Transport
from router_service.assembly import HISTORY, open_persona_router
from router_service.database_health import publishing
from router_service.settings import RouterSettings


def main() -> None:
    settings = load(RouterSettings)
    require_proof(settings)

    @asynccontextmanager
    async def open_router(health: Any, database: Database) -> AsyncIterator[Hosted]:
        async with (
            publishing(database, health),
            open_channel(settings.llm_target, Transport.of(settings)) as channel,
            open_persona_router(settings, channel, database, llm_target=settings.llm_target) as hosted,
        ):
            yield hosted

    run("router_service", settings, settings.router_bind, "ION_ROUTER_BIND", open_router, HISTORY)


if __name__ == "__main__":
    main()
