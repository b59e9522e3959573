"""Settings of the commands that talk to a running ION."""

from __future__ import annotations

import re

from pydantic import Field, SecretStr, field_validator

from chassis.settings import Settings


class ClientSettings(Settings):
    api_key: SecretStr | None = Field(
        None,
        validation_alias="ION_API_KEY",
        description="key or token that `ion` commands and the Python client show to a running ION",
    )

    @field_validator("api_key")
    @classmethod
    def _fits_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be of ASCII letters, digits and signs, without spaces")
        return value

    @property
    def authorization(self) -> str:
        """The header's value, "" for none."""
        return f"Bearer {self.api_key.get_secret_value()}" if self.api_key else ""
