"""Settings of the commands that talk to a running ION."""

from __future__ import annotations

from pydantic import Field, SecretStr

from chassis.settings import Settings


class ClientSettings(Settings):
    api_key: SecretStr | None = Field(
        None,
        min_length=1,
        validation_alias="ION_API_KEY",
        description="key or token that `ion` commands and the Python client show to a running ION",
    )

    @property
    def authorization(self) -> str:
        """The header's value, "" for none."""
        return f"Bearer {self.api_key.get_secret_value()}" if self.api_key else ""
