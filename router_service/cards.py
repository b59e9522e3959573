"""Personas as Character Cards: version 3 is written, versions 3 and 2 are read.

https://github.com/kwaroran/character-card-spec-v3: a card is JSON, alone or as base64 in a text chunk of a PNG. What
only ION knows of a persona, the routing above all, is in `data.extensions.ion`, so that a persona comes back as it
went.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

from pydantic import BaseModel, Field, ValidationError

from router_service.personas import NAME_PATTERN, Affinity, Persona, PersonaFileError, Prompt, problems_of

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngImageFile

MAX_FILE_BYTES: Final = 20_000_000
MAX_PIXELS: Final = 50_000_000  # of all frames: what a small file may unpack to
# Bounds of what others wrote: each text of a card, its tags, and `extensions.ion` as JSON.
MAX_TEXT_CHARACTERS: Final = 16_000
MAX_TAGS: Final = 100
MAX_EXTENSION_CHARACTERS: Final = 32_000
# How well a persona from elsewhere answers each tone, pace and intent, until its owner knows better.
FOREIGN_AFFINITY: Final = 0.7
INSTALL: Final = "pip install 'ion-chat[cards]'"
_V3_CHUNK, _V2_CHUNK = "ccv3", "chara"
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
# Where a persona's keys are in a card.
_ION_KEYS: Final[dict[tuple[str, ...], str]] = {
    ("name",): "data.name",
    ("prompt", "instructions"): "data.system_prompt",
    (): "data.extensions.ion",
}
_CHAR: Final = re.compile(r"\{\{char\}\}|<char>|<bot>", re.IGNORECASE)
_USER: Final = re.compile(r"\{\{user\}\}|<user>", re.IGNORECASE)
_ORIGINAL: Final = re.compile(r"\{\{original\}\}", re.IGNORECASE)  # the application's own system prompt

CardText = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS)]


class _Extensions(BaseModel):
    ion: dict[str, Any] | None = None


class _Data(BaseModel):
    """What is read of a card; all else is ignored, as the specification asks."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    nickname: Annotated[str, Field(max_length=200)] | None = None
    description: CardText = ""
    personality: CardText = ""
    scenario: CardText = ""
    system_prompt: CardText = ""
    tags: Annotated[tuple[CardText, ...], Field(max_length=MAX_TAGS)] = ()
    extensions: _Extensions = _Extensions()


class _Card(BaseModel):
    spec: Literal["chara_card_v3", "chara_card_v2"]
    data: _Data


def to_card(persona: Persona) -> dict[str, Any]:
    """The persona as a version 3 card."""
    ion = persona.model_dump(mode="json", exclude={"name": True, "prompt": {"instructions"}}, exclude_none=True)
    return {
        "spec": "chara_card_v3",
        "spec_version": "3.0",
        "data": {
            "name": persona.name,
            "description": persona.role,
            "personality": ", ".join(persona.traits),
            "scenario": "",
            "first_mes": "",
            "mes_example": "",
            "creator_notes": "",
            "system_prompt": persona.prompt.instructions,
            "post_history_instructions": "",
            "alternate_greetings": [],
            "group_only_greetings": [],
            "tags": list(persona.strengths),
            "creator": "",
            "character_version": "",
            "extensions": {"ion": ion},
        },
    }


def from_card(card: dict[str, Any], path: Path = Path("card")) -> Persona:
    """The card's persona; `path` is what errors name. Raises PersonaFileError.

    A card that ION did not write becomes a persona with FOREIGN_AFFINITY everywhere, whose instructions are the card's
    system prompt or else its description, personality and scenario.
    """
    try:
        data = _Card.model_validate(card).data
    except ValidationError as error:
        raise PersonaFileError(path, *problems_of(error)) from error
    ion = data.extensions.ion
    return _foreign_persona(data, path) if ion is None else _ion_persona(data, ion, path)


def _ion_persona(data: _Data, ion: dict[str, Any], path: Path) -> Persona:
    if len(json.dumps(ion)) > MAX_EXTENSION_CHARACTERS:
        limit = f"must have at most {MAX_EXTENSION_CHARACTERS} characters as JSON"
        raise PersonaFileError(path, f"data.extensions.ion: {limit}")
    given = ion.get("prompt")
    prompt = (given if isinstance(given, dict) else {}) | {"instructions": data.system_prompt}
    try:
        return Persona.model_validate(ion | {"name": persona_name(data.name), "prompt": prompt})
    except ValidationError as error:
        raise PersonaFileError(path, *problems_of(error, _ION_KEYS)) from error


def _foreign_persona(data: _Data, path: Path) -> Persona:
    def plain(text: str) -> str:
        return _plain(text, data.nickname or data.name)

    own_name, role = plain(data.name), plain(data.description).partition("\n")[0]
    parts = [plain(text) for text in (data.description, data.personality, data.scenario)]
    instructions = plain(data.system_prompt) or "\n\n".join(filter(None, parts))
    if not own_name:
        raise PersonaFileError(path, "data.name: must not be blank")
    if not instructions:
        raise PersonaFileError(path, "data.system_prompt: must not be blank where description and personality are")
    if len(instructions) > MAX_TEXT_CHARACTERS:
        limit = f"must have at most {MAX_TEXT_CHARACTERS} characters as it is used"
        raise PersonaFileError(path, f"data.system_prompt: {limit}")
    affinity = Affinity.even(FOREIGN_AFFINITY)
    tags = [re.sub(r"\W+", "_", plain(tag).lower()).strip("_") for tag in data.tags]
    return Persona(
        name=persona_name(own_name),
        korean_name=own_name,
        role=_shortened(role, 80) or "imported character",
        symbol="🎭",
        traits=_words(re.split(r"[,;.\n]", plain(data.personality))) or ("imported",),
        strengths=_words(tags) or ("conversation",),
        preferred_tones=tuple(affinity.tone),
        prompt_style="as_imported",
        topics=(),
        affinity=affinity,
        prompt=Prompt(instructions=instructions, temperature=0.8, max_output_tokens=1000),
    )


def _plain(text: str, char: str) -> str:
    """The text without macros, without control characters but tabs and line breaks, and without space around it."""
    for macro, meaning in ((_CHAR, char), (_USER, "the user"), (_ORIGINAL, "")):
        text = meaning.join(macro.split(text))
    lines = "\n".join(text.splitlines())
    return "".join(char for char in lines if char in "\t\n" or unicodedata.category(char) != "Cc").strip()


def _words(found: list[str]) -> tuple[str, ...]:
    """The first few that are short enough to be a word or two."""
    return tuple(dict.fromkeys(word for word in map(str.strip, found) if 0 < len(word) <= 40))[:8]


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def persona_name(name: str) -> str:
    """The name as a persona may have it: its Latin letters and digits, or a number drawn from it where it has none."""
    if re.fullmatch(NAME_PATTERN, name):
        return name
    latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", latin).strip("_")
    if not words[:1].isalpha():
        words = f"Persona_{words or hashlib.blake2s(name.encode(), digest_size=4).hexdigest()}"
    return words[:32].rstrip("_")


def read_card(path: Path) -> Persona:
    """The persona of a card file, JSON or PNG by content. Raises PersonaFileError."""
    data = _read(path)
    return from_card(_parse(_card_in_png(data, path) if data.startswith(_PNG_SIGNATURE) else data, path), path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise PersonaFileError(path, f"cannot be read: {(error.strerror or 'bad file').lower()}") from error
    if len(data) > MAX_FILE_BYTES:
        raise PersonaFileError(path, f"must have at most {MAX_FILE_BYTES // 1_000_000} MB")
    return data


def _parse(document: bytes, path: Path) -> dict[str, Any]:
    try:
        card = json.loads(document.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise PersonaFileError(path, f"must be a Character Card, JSON in UTF-8 or PNG: {error}") from error
    if not isinstance(card, dict):
        raise PersonaFileError(path, "must be a Character Card: a JSON object with spec and data")
    return card


def _card_in_png(data: bytes, path: Path) -> bytes:
    texts = _open_png(data, path).text
    for chunk in (_V3_CHUNK, _V2_CHUNK):
        if chunk in texts:
            try:
                return base64.b64decode(texts[chunk], validate=True)
            except ValueError as error:
                raise PersonaFileError(path, f"text chunk {chunk}: must be base64") from error
    raise PersonaFileError(path, f"must have a text chunk {_V3_CHUNK} or {_V2_CHUNK} to be a Character Card")


def _open_png(data: bytes, path: Path) -> PngImageFile:
    """The picture, wholly read. Raises PersonaFileError."""
    _require_pillow(path)
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = cast("PngImageFile", Image.open(BytesIO(data), formats=["PNG"]))
            if picture.width * picture.height * picture.n_frames > MAX_PIXELS:
                raise Image.DecompressionBombError
            picture.text  # noqa: B018 - reads every chunk and pixel
            picture.seek(0)
    except Exception as error:  # Pillow has many ways to say that a picture is no good
        raise PersonaFileError(path, f"must be a whole PNG of at most {MAX_PIXELS} pixels in all its frames") from error
    return picture


def write_json(persona: Persona, path: Path) -> None:
    """The persona as a card file."""
    path.write_text(card_json(persona), encoding="utf-8")


def card_json(persona: Persona) -> str:
    return json.dumps(to_card(persona), ensure_ascii=False, indent=2) + "\n"


def write_png(persona: Persona, path: Path, image: Path | None = None) -> None:
    """The persona as a card in `image`, or in a plain picture with its name. Raises PersonaFileError."""
    _require_pillow(path)
    from PIL.PngImagePlugin import PngInfo

    picture = _plain_picture(persona.name) if image is None else _open_png(_read(image), image)
    info = PngInfo()
    info.add_text(_V3_CHUNK, base64.b64encode(card_json(persona).encode()).decode())
    picture.save(path, format="PNG", pnginfo=info)


def _plain_picture(name: str) -> Image:
    from PIL import Image, ImageDraw, ImageFont

    width, height = 400, 600
    hue = hashlib.blake2s(name.encode()).digest()[0] * 360 // 256
    picture = Image.new("RGB", (width, height), f"hsl({hue}, 40%, 45%)")
    font = ImageFont.load_default(min(64, 560 // len(name)))
    ImageDraw.Draw(picture).text((width / 2, height / 2), name, font=font, fill="white", anchor="mm")
    return picture


def _require_pillow(path: Path) -> None:
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise PersonaFileError(path, f"PNG cards need the extra `cards`: {INSTALL}") from error
