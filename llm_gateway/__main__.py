"""`python -m llm_gateway`: the LLM gateway as a process of its own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from chassis.server import Hosted, run
from chassis.settings import load
from llm_gateway.assembly import open_llm_gateway
from llm_gateway.settings import LlmSettings


def main() -> None:
    settings = load(LlmSettings)

    def open_gateway(health: Any, _database: Any) -> AbstractAsyncContextManager[Hosted]:
        return open_llm_gateway(settings, health)

    run("llm_gateway", settings, settings.llm_bind, "ION_LLM_BIND", open_gateway)


if __name__ == "__main__":
    main()
