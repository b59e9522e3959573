"""`ion personas import` and `ion personas export`."""

from __future__ import annotations

import sys
from pathlib import Path

from chassis.settings import stop
from router_service import cards
from router_service.personas import (
    Persona,
    PersonaFileError,
    PersonaNotFound,
    load_personas,
    persona_files,
    read_persona,
    table_of,
)
from standalone import show


def import_card(file: Path, directory: Path, *, force: bool) -> None:
    """Write the card's persona into the directory. Exit status 2, and nothing written, where the personas there could
    not be used with it."""
    try:
        persona = cards.read_card(file)
        target = _target(persona, directory, force=force)
        _write(target, as_toml(persona, target))
    except PersonaFileError as error:
        stop(*str(error).splitlines())
    except OSError as error:
        stop(f"{directory}: cannot be written to: {(error.strerror or 'bad folder').lower()}")
    show.out.print(f"{persona.name} is in {target}.", markup=False, soft_wrap=True)


def _target(persona: Persona, directory: Path, *, force: bool) -> Path:
    """Where the persona's file belongs, in a directory that can be used with it. Raises PersonaFileError."""
    if not directory.is_dir():
        raise PersonaFileError(directory, "must be a folder")
    personas = {path: read_persona(path) for path in persona_files(directory)}
    name = persona.name.lower()
    namesakes = [path for path, other in personas.items() if other.name.lower() == name]
    target = namesakes[0] if namesakes else directory / f"{name}.toml"
    if target.exists() and not force:
        raise PersonaFileError(target, "is there already; --force replaces it")
    table_of(directory, personas | {target: persona})
    return target


def as_toml(persona: Persona, path: Path) -> str:
    """The text of its persona file; `path` is what errors name. Raises PersonaFileError."""
    try:
        import tomli_w
    except ImportError as error:
        raise PersonaFileError(path, f"writing it needs the extra `cards`: {cards.INSTALL}") from error
    return tomli_w.dumps(persona.model_dump(mode="json", exclude_none=True), multiline_strings=True)


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a running router reads along."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def export_card(name: str, directory: Path, out: Path | None, image: Path | None) -> None:
    """Write the persona as a card to `out`, or to standard output. Exit status 2 where that cannot be."""
    kind = out.suffix.lower() if out else ".json"
    if kind not in (".json", ".png"):
        stop(f"--out={out}: must end in .json or .png")
    if image and kind != ".png":
        stop(f"--image={image}: must be given with an --out that ends in .png")
    try:
        persona = load_personas(directory).get(name)
        if out is None:
            sys.stdout.write(cards.card_json(persona))
        elif kind == ".json":
            cards.write_json(persona, out)
        else:
            cards.write_png(persona, out, image)
    except PersonaNotFound as error:
        stop(error.message)
    except PersonaFileError as error:
        stop(*str(error).splitlines())
    except OSError as error:
        stop(f"--out={out}: cannot be written: {(error.strerror or 'bad file').lower()}")
