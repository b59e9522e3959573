"""`python -m gateway_http`: the HTTP gateway as a process of its own."""

from __future__ import annotations

import logging

import uvloop

from chassis.access import open_entrance, require_proof
from chassis.caller import show
from chassis.channel import open_channel
from chassis.observability import observing
from chassis.server import listen, stop_signal
from chassis.settings import Bind, load
from chassis.transport import Transport
from gateway_http.server import serve
from gateway_http.settings import HttpSettings


def main() -> None:
    settings = load(HttpSettings)
    require_proof(settings)
    with observing("gateway_http", settings, serves_metrics=True):
        uvloop.run(_serve(settings))


async def _serve(settings: HttpSettings) -> None:
    stopping = stop_signal()
    listener = listen(settings.bind, settings.bind_variable)
    bound = Bind(settings.bind.host, listener.getsockname()[1])
    logging.getLogger("gateway_http").info("gateway_http serves HTTP", extra={"bind": str(bound)})
    transport = Transport.of(settings)
    show(*transport.shown)
    async with (
        open_entrance(settings) as entrance,
        open_channel(settings.router_target, transport) as router,
        open_channel(settings.llm_target, transport) as llm,
    ):
        await serve(settings, listener, router, llm, stopping, entrance.door, router_target=settings.router_target)


if __name__ == "__main__":
    main()
