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
    history_turns: int = Field(
        12,
        ge=1,
        le=100,
        validation_alias="ION_HISTORY_TURNS",
        description="newest turns of a session that the model is told word by word; with ION_SUMMARY up to 8 more",
    )
    summary: bool = Field(
        True, validation_alias="ION_SUMMARY", description="1: let the model summarise the older turns of long sessions"
    )
    session_retention_days: float = Field(
        0.0,
        ge=0,
        le=36500,
        allow_inf_nan=False,
        validation_alias="ION_SESSION_RETENTION_DAYS",
        description="days after its last use that a session is deleted; 0: never",
    )
