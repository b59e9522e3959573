"""Settings of the HTTP gateway."""

from __future__ import annotations

from ipaddress import ip_network

from pydantic import Field, field_validator

from chassis.access.settings import AccessSettings
from chassis.settings import Bind, BindSetting, ListSetting


class HttpSettings(AccessSettings):
    http_bind: BindSetting = Field(
        Bind("127.0.0.1", 8080), validation_alias="ION_HTTP_BIND", description="host:port of the HTTP listener"
    )
    port: int | None = Field(
        None,
        ge=0,
        le=65535,
        validation_alias="PORT",
        description="where set, listen on this port of all addresses instead (Cloud Run sets it)",
    )
    router_target: str = Field(
        "127.0.0.1:50051",
        min_length=1,
        validation_alias="ION_ROUTER_TARGET",
        description="gRPC target of the persona router, such as dns:///router:50051",
    )
    llm_target: str = Field(
        "127.0.0.1:50052",
        min_length=1,
        validation_alias="ION_LLM_TARGET",
        description="gRPC target of the LLM gateway, such as dns:///llm:50052",
    )
    max_body_bytes: int = Field(
        1 << 20,
        ge=1024,
        le=64 << 20,
        validation_alias="ION_MAX_BODY_BYTES",
        description="bytes a request body may have",
    )

    trusted_proxies: ListSetting = Field(
        (),
        validation_alias="ION_TRUSTED_PROXIES",
        description="addresses or networks of proxies whose X-Forwarded-For is believed; unset: nobody's",
    )

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses_or_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ValueError(f"addresses or networks such as 10.0.0.0/8, separated by commas: {error}") from error
        return value

    @property
    def bind(self) -> Bind:
        return self.http_bind if self.port is None else Bind("0.0.0.0", self.port)

    @property
    def bind_variable(self) -> str:
        return "ION_HTTP_BIND" if self.port is None else "PORT"
