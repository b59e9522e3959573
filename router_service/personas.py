"""The personas: data from TOML files, checked once at the start."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from chassis.errors import IonError, Violation
from ion.error.v1.reason_pb2 import Reason
from router_service.analysis import INTENTS, PACES, TONES, TOPICS

DEFAULT_DIRECTORY: Final = Path(__file__).resolve().parent.parent / "personas"

Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Words = Annotated[tuple[str, ...], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]


def _one_of(allowed: tuple[str, ...]) -> AfterValidator:
    def check(names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in allowed]
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: allowed are {', '.join(allowed)}")
        return names

    return AfterValidator(check)


def _exactly(allowed: tuple[str, ...]) -> AfterValidator:
    def check(table: dict[str, float]) -> dict[str, float]:
        if table.keys() != set(allowed):
            raise ValueError(f"must have exactly the keys {', '.join(allowed)}")
        return table

    return AfterValidator(check)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Affinity(_Part):
    """How well the persona answers each tone, pace and intent, each from 0 (not at all) to 1."""

    tone: Annotated[dict[str, Score], _exactly(TONES)]
    pace: Annotated[dict[str, Score], _exactly(PACES)]
    intent: Annotated[dict[str, Score], _exactly(INTENTS)]


class Prompt(_Part):
    """What the model is told, and how freely it may speak."""

    instructions: Text
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
    max_output_tokens: Annotated[int, Field(ge=1, le=65536)]


class Persona(_Part):
    """One persona file. The one with an `apology`, a text a language, speaks when the model cannot."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
    korean_name: Text
    role: Text
    symbol: Text
    traits: Words
    strengths: Words
    preferred_tones: Annotated[Words, _one_of(TONES)]
    prompt_style: Text
    topics: Annotated[tuple[str, ...], _one_of(TOPICS)]
    affinity: Affinity
    prompt: Prompt
    apology: dict[Literal["ko", "en"], Text] | None = None


class PersonaFileError(ValueError):
    """A persona file that cannot be used; says which file, which key and what is allowed."""


class PersonaNotFound(IonError):
    """No persona has the name that was asked for."""

    def __init__(self, known: Iterable[str]) -> None:
        description = f"must be one of {', '.join(known)}"
        super().__init__(
            Reason.REASON_PERSONA_NOT_FOUND,
            f"No persona has that name: it {description}.",
            violations=[Violation("persona", description)],
        )


@dataclass(frozen=True)
class PersonaTable:
    """All personas, by name."""

    personas: tuple[Persona, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(persona.name for persona in self.personas)

    @cached_property
    def affinities(self) -> np.ndarray:
        """Shape (tones + paces + intents, personas), in the order of the vocabularies."""
        columns = [
            [
                *(persona.affinity.tone[tone] for tone in TONES),
                *(persona.affinity.pace[pace] for pace in PACES),
                *(persona.affinity.intent[intent] for intent in INTENTS),
            ]
            for persona in self.personas
        ]
        return np.array(columns, dtype=np.float64).T.copy()

    @cached_property
    def fields(self) -> np.ndarray:
        """Shape (topics, personas): 1 where the topic is the persona's field."""
        columns = [[float(topic in persona.topics) for topic in TOPICS] for persona in self.personas]
        return np.array(columns, dtype=np.float64).T.copy()

    @cached_property
    def apologist(self) -> Persona:
        return next(persona for persona in self.personas if persona.apology)

    @cached_property
    def _by_lower_name(self) -> dict[str, Persona]:
        return {persona.name.lower(): persona for persona in self.personas}

    def get(self, name: str) -> Persona:
        """Case does not matter. Raises PersonaNotFound."""
        persona = self._by_lower_name.get(name.strip().lower())
        if persona is None:
            raise PersonaNotFound(self.names)
        return persona


def load_personas(directory: Path) -> PersonaTable:
    """Every `*.toml` of the directory. Raises PersonaFileError."""
    personas = [_load(path) for path in sorted(directory.glob("*.toml"))]
    if not personas:
        raise PersonaFileError(f"{directory}: must have at least one persona file (*.toml)")
    names = [persona.name.lower() for persona in personas]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise PersonaFileError(f"{directory}: name: must be unique, and more than one file has {', '.join(twice)}")
    if sum(persona.apology is not None for persona in personas) != 1:
        raise PersonaFileError(f"{directory}: apology: must be in exactly one persona file")
    return PersonaTable(tuple(sorted(personas, key=lambda persona: persona.name)))


def _load(path: Path) -> Persona:
    try:
        return Persona.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PersonaFileError(f"{path}: must be UTF-8 TOML: {error}") from error
    except ValidationError as error:
        raise PersonaFileError("\n".join(_describe(path, dict(item)) for item in error.errors())) from error


def _describe(path: Path, item: dict[str, object]) -> str:
    location = item["loc"]
    key = ".".join(map(str, location)) if isinstance(location, tuple) else str(location)
    allowed = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    given = item["input"]
    shown = f" = {given!r}" if isinstance(given, (str, int, float, bool)) and len(str(given)) < 40 else ""
    return f"{path}: {key}{shown}: {allowed}"
