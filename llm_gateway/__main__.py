"""`python -m llm_gateway`: the LLM gateway as a process of its own."""

from __future__ import annotations

from functools import partial

from chassis.server import run
from chassis.settings import load
from llm_gateway.assembly import open_llm_gateway
from llm_gateway.settings import LlmSettings


def main() -> None:
    settings = load(LlmSettings)
    run("llm_gateway", settings, settings.llm_bind, "ION_LLM_BIND", partial(open_llm_gateway, settings))


if __name__ == "__main__":
    main()
