"""The personas: data from TOML files, checked as a whole."""

from __future__ import annotations

import tomllib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from chassis.errors import IonError, Violation
from ion.error.v1.reason_pb2 import Reason
from router_service.analysis import INTENTS, PACES, TONES, TOPICS

DEFAULT_DIRECTORY: Final = Path(__file__).resolve().parent.parent / "personas"
NAME_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_]{0,31}$"
MAX_NAMES_SHOWN: Final = 20
MAX_SUMMARY_CHARACTERS: Final = 200

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

    @classmethod
    def even(cls, score: float) -> Affinity:
        """The same for all of them."""
        tone, pace, intent = (dict.fromkeys(names, score) for names in (TONES, PACES, INTENTS))
        return cls(tone=tone, pace=pace, intent=intent)


class Prompt(_Part):
    """What the model is told, and how freely it may speak."""

    instructions: Text
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
    max_output_tokens: Annotated[int, Field(ge=1, le=65536)]


class Persona(_Part):
    """One persona file. The one with an `apology`, a text a language, speaks when the model cannot."""

    name: Annotated[str, Field(pattern=NAME_PATTERN)]
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
    """Files that cannot be used. Its text has a line a problem: which file, which key and what is allowed.

    `summary` is the first of them, bounded, for those who are not to know where the files are: of the path it has the
    file's name, and nothing where the problem is the folder's.
    """

    def __init__(self, path: Path, *problems: str, of_folder: bool = False) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        first = problems[0] if of_folder else f"{path.name}: {problems[0]}"
        self.summary = " ".join(first.split())[:MAX_SUMMARY_CHARACTERS]


class PersonaNotFound(IonError):
    """No persona has the name that was asked for."""

    def __init__(self, known: Sequence[str]) -> None:
        description = f"must be one of {listed(known)}"
        super().__init__(
            Reason.REASON_PERSONA_NOT_FOUND,
            f"No persona has that name: it {description}.",
            violations=[Violation("persona", description)],
        )


def listed(names: Sequence[str]) -> str:
    """The names, and of very many only the first: they are to fit in a line, and in the trailers of a call."""
    shown = ", ".join(names[:MAX_NAMES_SHOWN])
    return shown if len(names) <= MAX_NAMES_SHOWN else f"{shown} and {len(names) - MAX_NAMES_SHOWN} more"


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

    def prepare(self) -> None:
        """Work out ahead, in whichever thread, what calls would else wait for: 10,000 personas take 100 ms."""
        for part in (self.names, self.affinities, self.fields, self.apologist, self._by_lower_name):
            del part

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
    """Every persona file of the directory. Raises PersonaFileError."""
    return table_of(directory, {path: read_persona(path) for path in persona_files(directory)})


def persona_files(directory: Path) -> list[Path]:
    """Its `*.toml`, sorted. What editors keep beside them has names that begin with a dot."""
    return sorted(path for path in directory.glob("*.toml") if not path.name.startswith("."))


def read_persona(path: Path) -> Persona:
    """One persona file. Raises PersonaFileError."""
    try:
        return Persona.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise PersonaFileError(path, f"cannot be read: {(error.strerror or 'bad file').lower()}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PersonaFileError(path, f"must be UTF-8 TOML: {error}") from error
    except ValidationError as error:
        raise PersonaFileError(path, *problems_of(error)) from error


def table_of(directory: Path, personas: Mapping[Path, Persona]) -> PersonaTable:
    """The personas of these files, checked together. Raises PersonaFileError."""
    if not personas:
        raise PersonaFileError(directory, "must have at least one persona file (*.toml)", of_folder=True)
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for path, persona in personas.items():
        owners[persona.name.lower()].append(path.name)
    for name, files in owners.items():
        if len(files) > 1:
            raise PersonaFileError(directory, f"name: must be unique, and {name} is in {listed(files)}", of_folder=True)
    apologists = [path.name for path, persona in personas.items() if persona.apology is not None]
    if len(apologists) != 1:
        found = f", and is in {listed(apologists)}" if apologists else ""
        raise PersonaFileError(directory, f"apology: must be in exactly one persona file{found}", of_folder=True)
    return PersonaTable(tuple(sorted(personas.values(), key=lambda persona: persona.name)))


def problems_of(error: ValidationError, keys: Mapping[tuple[str, ...], str] = MappingProxyType({})) -> list[str]:
    """One line a bad value: key, value, what is allowed. `keys` renames the beginnings of keys, the first that fits."""
    return [_describe(dict(item), keys) for item in error.errors()]


def _describe(item: dict[str, Any], keys: Mapping[tuple[str, ...], str]) -> str:
    location = tuple(map(str, item["loc"]))
    for beginning, shown_as in keys.items():
        if location[: len(beginning)] == beginning:
            location = (shown_as, *location[len(beginning) :])
            break
    allowed = str(item["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    if item["type"] == "model_type":  # its own words name our class
        allowed = "must have keys and values of its own"
    given = item["input"]
    shown = f" = {given!r}" if isinstance(given, (str, int, float, bool)) and len(str(given)) < 40 else ""
    return f"{'.'.join(location)}{shown}: {allowed}"
