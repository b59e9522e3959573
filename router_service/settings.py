"""Settings of the persona router."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.settings import Bind, BindSetting, Settings
from router_service.personas import DEFAULT_DIRECTORY


class RouterSettings(Settings):
    router_bind: BindSetting = Field(
        Bind("127.0.0.1", 50051), validation_alias="ION_ROUTER_BIND", description="host:port of the router's gRPC"
    )
    llm_target: str = Field(
        "127.0.0.1:50052",
        min_length=1,
        validation_alias="ION_LLM_TARGET",
        description="gRPC target of the LLM gateway, such as dns:///llm:50052",
    )
    personas_dir: Path = Field(
        DEFAULT_DIRECTORY, validation_alias="ION_PERSONAS_DIR", description="folder of persona files (*.toml)"
    )
