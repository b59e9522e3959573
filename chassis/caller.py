"""Who a request is made for, on its way through the services, and how a process lets callers in.

A process admits each call once: through its `Door`, which looks at what the caller shows, or because a trusted service
makes it and says for whom (see trust.py). What is admitted is a `Caller`, which goes on with the calls below.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from math import ceil
from typing import Final, Protocol, Self

CALLER_KEY: Final = "x-ion-caller"
AUTHORIZATION_KEY: Final = "authorization"
API_KEY_KEY: Final = "x-api-key"
OPERATORS: Final = "admin"  # the tier of those who run ION


@dataclass(frozen=True, slots=True)
class Caller:
    """`principal` is who pays and owns: "key:<id>" or "jwt:<digest of issuer and subject>", and "" where authentication
    is off. `tier` names the limits that hold."""

    principal: str = ""
    tier: str = ""

    def to_header(self) -> str:
        return f"{self.principal};{self.tier}"

    @classmethod
    def from_header(cls, value: str) -> Caller:
        principal, _, tier = value.rpartition(";")
        return cls(principal, tier)


NOBODY: Final = Caller()


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller shows at the door: headers or metadata as they came, "" where there was none; its address, for
    limits where authentication is off, and "" where that is not known."""

    authorization: str = field(default="", repr=False)
    api_key: str = field(default="", repr=False)
    address: str = ""


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who came in. `headers` tell of the limits that hold: "RateLimit-Limit" and others, by name."""

    caller: Caller = NOBODY
    headers: Mapping[str, str] = field(default_factory=dict)


class Door(Protocol):
    """Lets callers in."""

    async def admit(self, shown: Shown) -> Admitted:
        """Raises IonError: UNAUTHENTICATED, RATE_LIMITED (with `retry_after_seconds` and `headers`), and
        DATABASE_UNAVAILABLE or OVERLOADED where a key cannot be looked up."""
        ...

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None:
        """Count tokens that the admitted call has used, more than none; in the background. Never raises."""
        ...


class OpenDoor:
    """Authentication and limits are off: everybody is nobody in particular."""

    async def admit(self, shown: Shown) -> Admitted:
        return _ADMITTED

    def charge(self, shown: Shown, admitted: Admitted, tokens: int) -> None:
        """There is nothing to count for."""


_ADMITTED: Final = Admitted()


class Meter:
    """Tokens that one admitted call has used so far."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = 0


# A guess, and rather too many: whoever leaves before the end takes with them what the model has counted.
CHARACTERS_A_TOKEN: Final = 2

_shown: tuple[tuple[str, str], ...] = ()
_current: ContextVar[Caller] = ContextVar("ion_caller", default=NOBODY)
_meter: ContextVar[Meter | None] = ContextVar("ion_meter", default=None)


def current() -> Caller:
    return _current.get()


def enter(caller: Caller) -> Meter:
    """Take on the caller for the rest of this task; what the call uses is counted in the meter."""
    meter = Meter()
    _current.set(caller)
    _meter.set(meter)
    return meter


def note_tokens(tokens: int) -> None:
    """The current call has used so many; whoever admitted it charges them when it ends."""
    meter = _meter.get()
    if meter is not None:
        meter.tokens += tokens


class StreamedTokens:
    """Tokens of one reply that is passed on as it comes, while the block lasts: as the end of the reply tells them, or
    estimated from what was passed on where it is left before its end."""

    def __init__(self) -> None:
        self._characters = 0

    def passed_on(self, text: str) -> None:
        self._characters += len(text)

    def told(self, tokens: int) -> None:
        """The end is there, and says how many they were."""
        self._characters = 0
        note_tokens(tokens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._characters:
            note_tokens(ceil(self._characters / CHARACTERS_A_TOKEN))


def show(*metadata: tuple[str, str]) -> None:
    """What this process shows to the services that it calls, from now on: a service its token, a command its key."""
    global _shown
    _shown = metadata


def outgoing_metadata() -> tuple[tuple[str, str], ...]:
    """The gRPC metadata that says for whom a call is made, and what proves that this process may say so."""
    caller = _current.get()
    return ((CALLER_KEY, caller.to_header()), *_shown) if caller.principal else _shown
