"""How a command fails on its own account, where no service does."""

from __future__ import annotations


class CommandFailed(Exception):
    """Ends the command with exit status 1. `reason_name` is in capitals, as those of the contract."""

    retryable = False

    def __init__(self, reason_name: str, message: str) -> None:
        self.reason_name = reason_name
        self.message = message
        super().__init__(message)
