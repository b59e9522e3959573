"""`ion serve`: everything in one process."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack

from chassis.access import open_entrance
from chassis.server import listen, stop_signal
from chassis.settings import Bind
from gateway_http.server import serve as serve_http
from gateway_http.settings import HttpSettings
from llm_gateway.settings import LlmSettings
from router_service.assembly import HISTORY
from router_service.settings import RouterSettings
from standalone.pipeline import listening, open_pipeline


async def serve(
    http_settings: HttpSettings, router_settings: RouterSettings, llm_settings: LlmSettings, *, with_grpc: bool
) -> None:
    """Serve HTTP, and gRPC where asked, until SIGTERM or SIGINT. A second signal does not hurry it."""
    stopping = stop_signal()
    listener = listen(http_settings.bind, http_settings.bind_variable)
    bound = Bind(http_settings.bind.host, listener.getsockname()[1])
    async with AsyncExitStack() as stack:
        entrance = await stack.enter_async_context(open_entrance(http_settings, HISTORY))
        pipeline = await stack.enter_async_context(open_pipeline(router_settings, llm_settings, entrance.database))
        lines = [f"ION serves http://{bound} (backend: {llm_settings.backend_name}; docs: http://{bound}/docs)"]
        if with_grpc:
            router_at = await stack.enter_async_context(
                listening(
                    pipeline.router, router_settings.router_bind, "ION_ROUTER_BIND", router_settings, entrance.door
                )
            )
            llm_at = await stack.enter_async_context(
                listening(pipeline.llm, llm_settings.llm_bind, "ION_LLM_BIND", llm_settings, entrance.door)
            )
            lines.append(f"gRPC: persona router on {router_at}, LLM gateway on {llm_at}")
        announce = asyncio.get_running_loop().call_soon
        announce(_say, lines)
        await serve_http(
            http_settings, listener, pipeline.router.channel, pipeline.llm.channel, stopping, entrance.door
        )


def _say(lines: list[str]) -> None:
    sys.stderr.write("".join(f"{line}\n" for line in lines))
