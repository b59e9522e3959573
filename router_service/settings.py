"""Settings of the persona router."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from chassis.access.settings import AccessSettings
from chassis.settings import Bind, BindSetting, Seconds
from router_service.personas import DEFAULT_DIRECTORY


class RouterSettings(AccessSettings):
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
    second_opinion: bool = Field(
        False,
        validation_alias="ION_SECOND_OPINION",
        description="1: ask the model for tone and intent where the tone is not sure",
    )
    second_opinion_below: float = Field(
        0.5,
        gt=0,
        le=1,
        validation_alias="ION_SECOND_OPINION_BELOW",
        description="confidence of the tone below which the model is asked",
    )
    second_opinion_timeout_seconds: Seconds = Field(
        0.5,
        validation_alias="ION_SECOND_OPINION_TIMEOUT_SECONDS",
        description="seconds a second opinion may take; never more than a quarter of what the caller has left",
    )
