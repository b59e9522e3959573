"""Personas as Character Cards: what comes back, what comes from elsewhere, and what is refused with which words."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from router_service import cards
from router_service.cards import from_card, persona_name, read_card, to_card, write_json, write_png
from router_service.personas import DEFAULT_DIRECTORY, NAME_PATTERN, Persona, PersonaFileError, load_personas

TABLE = load_personas(DEFAULT_DIRECTORY)
LUA = TABLE.get("Lua")
FOREIGN = {
    "spec": "chara_card_v3",
    "spec_version": "3.1",
    "data": {
        "name": "Captain Jäger",
        "nickname": "Cap",
        "description": "{{char}} sails {{user}} home.\nAnd sings.",
        "personality": "brave, loud; kind",
        "scenario": "<BOT> meets <USER> in a bar.",
        "system_prompt": "",
        "tags": ["Sea Stories", "sea stories", "x" * 41, "humour"],
        "first_mes": "Ahoy!",
        "extensions": {"other/app": {"depth": 4}},
        "assets": None,
    },
}


def foreign(**data) -> dict:
    return FOREIGN | {"data": FOREIGN["data"] | data}


def encoded(card: object) -> str:
    return base64.b64encode(json.dumps(card).encode()).decode()


def png(path: Path, **texts: str) -> Path:
    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (2, 2)).save(path, format="PNG", pnginfo=info)
    return path


def refused(path: Path) -> str:
    with pytest.raises(PersonaFileError) as caught:
        read_card(path)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{path}: ")
    return line


def refused_card(card: dict) -> str:
    with pytest.raises(PersonaFileError) as caught:
        from_card(card)
    return str(caught.value)


# Our own


@pytest.mark.parametrize("persona", TABLE.personas, ids=TABLE.names)
@pytest.mark.parametrize("write", [write_json, write_png])
def test_our_personas_come_back_as_they_went(persona, write, tmp_path):
    write(persona, tmp_path / "card")
    assert read_card(tmp_path / "card") == persona


_WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1).map(tuple)


@given(
    name=st.from_regex(NAME_PATTERN, fullmatch=True).filter(lambda name: not name.endswith("\n")),
    instructions=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    traits=_WORDS,
    temperature=st.floats(0, 2),
)
def test_any_persona_comes_back_as_it_went(name, instructions, traits, temperature):
    prompt = LUA.prompt.model_copy(update={"instructions": instructions, "temperature": temperature})
    persona = LUA.model_copy(update={"name": name, "traits": traits, "prompt": prompt})
    assert from_card(json.loads(json.dumps(to_card(persona)))) == persona


def test_a_card_of_ours_has_what_other_applications_read():
    card = to_card(LUA)
    data = card["data"]
    assert (card["spec"], card["spec_version"]) == ("chara_card_v3", "3.0")
    assert data["name"] == "Lua"
    assert data["system_prompt"] == LUA.prompt.instructions
    assert data["description"] == LUA.role
    assert data["personality"] == "empathetic, creative, flexible"
    assert data["tags"] == list(LUA.strengths)
    texts = ("scenario", "first_mes", "mes_example", "creator_notes", "post_history_instructions", "creator")
    assert [data[key] for key in (*texts, "character_version")] == [""] * 7
    assert (data["alternate_greetings"], data["group_only_greetings"]) == ([], [])
    assert data["extensions"]["ion"]["affinity"]["tone"]["frustrated"] == 1.0
    assert "apology" not in data["extensions"]["ion"]


def test_a_png_of_ours_is_a_picture_with_a_ccv3_text(tmp_path):
    write_png(LUA, tmp_path / "lua.png")
    with Image.open(tmp_path / "lua.png") as picture:
        assert picture.text.keys() == {"ccv3"}
        assert json.loads(base64.b64decode(picture.text["ccv3"])) == to_card(LUA)
        assert len(picture.getcolors(maxcolors=100_000)) > 1  # the name stands on it


def test_a_picture_of_ones_own_keeps_its_pixels_and_loses_its_old_card(tmp_path):
    given_picture = png(tmp_path / "in.png", chara=encoded(FOREIGN))
    write_png(LUA, tmp_path / "out.png", given_picture)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (2, 2)
        assert picture.text.keys() == {"ccv3"}
    assert read_card(tmp_path / "out.png") == LUA


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"korean_name": ""}, "data.extensions.ion.korean_name"),
        ({"topics": ["cooking"]}, "data.extensions.ion.topics: cooking: allowed are data"),
        ({"colour": "blue"}, "data.extensions.ion.colour = 'blue'"),
        ({"prompt": 3}, "data.extensions.ion.prompt.temperature"),
        ({"prompt": {"temperature": float("nan"), "max_output_tokens": 1}}, "data.extensions.ion.prompt.temperature"),
        ({"symbol": "x" * 40_000}, "data.extensions.ion: must have at most 32000"),
    ],
)
def test_bad_extensions_are_refused_with_their_key(change, words):
    card = to_card(LUA)
    card["data"]["extensions"]["ion"].update(change)
    assert words in refused_card(card)


def test_an_emptied_system_prompt_is_refused_with_its_key():
    card = to_card(LUA)
    card["data"]["system_prompt"] = ""
    assert "data.system_prompt" in refused_card(card)


# From elsewhere


def test_a_card_from_elsewhere_becomes_a_middling_persona():
    persona = from_card(FOREIGN)
    assert (persona.name, persona.korean_name) == ("Captain_Jager", "Captain Jäger")
    assert persona.role == "Cap sails the user home."
    assert persona.traits == ("brave", "loud", "kind")
    assert persona.strengths == ("sea_stories", "humour")
    affinity = persona.affinity
    assert {*affinity.tone.values(), *affinity.pace.values(), *affinity.intent.values()} == {cards.FOREIGN_AFFINITY}
    assert cards.FOREIGN_AFFINITY == 0.7
    assert persona.topics == ()
    assert persona.apology is None
    assert Persona.model_validate(persona.model_dump()) == persona


def test_instructions_are_the_description_where_there_is_no_system_prompt():
    assert from_card(FOREIGN).prompt.instructions == (
        "Cap sails the user home.\nAnd sings.\n\nbrave, loud; kind\n\nCap meets the user in a bar."
    )


def test_instructions_are_the_system_prompt_where_there_is_one():
    card = foreign(system_prompt="{{original}}\r\nYou are {{Char}}; {{USER}} is\x07 a guest.\x1b ", nickname=None)
    assert from_card(card).prompt.instructions == "You are Captain Jäger; the user is a guest."
    assert "sails" in from_card(foreign(system_prompt=" {{original}} ")).prompt.instructions


def test_version_2_is_read_and_bare_cards_get_words_for_what_they_lack():
    persona = from_card({"spec": "chara_card_v2", "data": {"name": "루아", "system_prompt": "Be kind."}})
    assert re.fullmatch(r"Persona_[0-9a-f]{8}", persona.name)
    assert persona.korean_name == "루아"
    assert (persona.role, persona.traits, persona.strengths) == ("imported character", ("imported",), ("conversation",))


def test_long_descriptions_are_shortened_where_a_few_words_are_wanted():
    role = from_card(foreign(description="긴" * 200)).role
    assert len(role) == 80
    assert role.endswith("…")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Lua", "Lua"),
        ("Lua_", "Lua_"),
        ("  Doctor  Who?! ", "Doctor_Who"),
        ("2B", "Persona_2B"),
        ("x" * 50, "x" * 32),
        ("루아 (Lua)", "Lua"),
        ("a" * 31 + " b", "a" * 31),
    ],
)
def test_names_become_persona_names(name, expected):
    assert persona_name(name) == expected


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_becomes_a_persona_name_that_stays(name):
    assert re.fullmatch(NAME_PATTERN, persona_name(name))
    assert persona_name(persona_name(name)) == persona_name(name)


def test_different_names_without_latin_letters_stay_apart():
    assert persona_name("루아") != persona_name("리리")


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({}, "spec: Field required"),
        (FOREIGN | {"spec": "lorebook_v3"}, "spec = 'lorebook_v3': must be 'chara_card_v3' or 'chara_card_v2'"),
        (FOREIGN | {"data": 3}, "data = 3: must have keys"),
        (foreign(name=" "), "data.name: must not be blank"),
        (foreign(name="x" * 201), "data.name: String should have at most 200"),
        (foreign(name="\ud800"), "data.name"),
        (foreign(system_prompt=["a"]), "data.system_prompt: must be a valid string"),
        (foreign(description="", personality="", scenario=""), "data.system_prompt: must not be blank"),
        (foreign(description="x" * 16_001), "data.description: String should have at most 16000"),
        (foreign(system_prompt="{{char}}" * 2000, nickname="x" * 200), "data.system_prompt: must have at most 16000"),
        (foreign(tags=["x"] * 101), "data.tags"),
        (foreign(tags="sea"), "data.tags = 'sea'"),
        (foreign(extensions={"ion": []}), "data.extensions.ion"),
    ],
)
def test_malformed_cards_are_refused_with_the_key_and_what_is_allowed(card, words):
    message = refused_card(card)
    assert words in message
    assert message.startswith("card: ")
    assert len(message) < 300


# Files


def test_version_3_is_preferred_and_version_2_is_read(tmp_path):
    v2 = {"spec": "chara_card_v2", "data": {"name": "Two", "system_prompt": "s"}}
    assert read_card(png(tmp_path / "both.png", chara=encoded(v2), ccv3=encoded(FOREIGN))).name == "Captain_Jager"
    assert read_card(png(tmp_path / "two.png", chara=encoded(v2))).name == "Two"


def test_the_content_decides_what_a_file_is(tmp_path):
    png(tmp_path / "card.json", ccv3=encoded(FOREIGN))
    (tmp_path / "card.png").write_text("\ufeff" + json.dumps(FOREIGN), "utf-8")
    assert read_card(tmp_path / "card.json") == read_card(tmp_path / "card.png")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "must be a Character Card, JSON in UTF-8 or PNG"),
        (b"\xff\xfe", "must be a Character Card, JSON in UTF-8 or PNG"),
        (b"[" * 100_000, "must be a Character Card, JSON in UTF-8 or PNG"),
        (b"[]", "must be a Character Card: a JSON object"),
        (b"\x89PNG\r\n\x1a\n", "must be a whole PNG"),
    ],
)
def test_files_that_are_no_cards_are_refused(tmp_path, content, words):
    (tmp_path / "card").write_bytes(content)
    assert words in refused(tmp_path / "card")


def test_pictures_that_are_no_cards_are_refused(tmp_path):
    assert "must have a text chunk ccv3 or chara" in refused(png(tmp_path / "a.png", Comment="hello"))
    assert "text chunk ccv3: must be base64" in refused(png(tmp_path / "b.png", ccv3="{}"))
    assert "text chunk ccv3: must be base64" in refused(png(tmp_path / "c.png", ccv3="é"))
    assert "JSON in UTF-8" in refused(png(tmp_path / "d.png", ccv3=base64.b64encode(b"{").decode()))
    whole = png(tmp_path / "e.png", ccv3=encoded(FOREIGN)).read_bytes()
    (tmp_path / "f.png").write_bytes(whole[: len(whole) // 2])
    assert "must be a whole PNG" in refused(tmp_path / "f.png")


@given(st.binary(max_size=60), st.integers(0, 400))
def test_damage_is_refused_or_harmless(tmp_path_factory, noise, position):
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    whole = png(path, ccv3=encoded(FOREIGN)).read_bytes()
    path.write_bytes(whole[:position] + noise + whole[position + len(noise) :])
    try:
        read_card(path)
    except PersonaFileError as error:
        assert str(error).startswith(f"{path}: ")  # noqa: PT017


def test_missing_and_too_large_files_are_refused(tmp_path, monkeypatch):
    assert "cannot be read: no such file or directory" in refused(tmp_path / "missing.json")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(20_000_001)
    assert "must have at most 20 MB" in refused(tmp_path / "large")


def test_a_small_file_that_unpacks_to_a_huge_picture_is_refused_before_it_does(tmp_path, monkeypatch):
    info = PngInfo()
    info.add_text("ccv3", encoded(FOREIGN))
    Image.new("1", (8000, 8000)).save(tmp_path / "bomb.png", format="PNG", pnginfo=info)
    assert (tmp_path / "bomb.png").stat().st_size < 20_000
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", lambda self: pytest.fail("unpacked"))
    assert "at most 50000000 pixels" in refused(tmp_path / "bomb.png")


def test_a_text_that_unpacks_to_a_huge_one_is_refused(tmp_path):
    info = PngInfo()
    info.add_text("ccv3", "A" * 64_000_000, zip=True)
    Image.new("1", (2, 2)).save(tmp_path / "bomb.png", format="PNG", pnginfo=info)
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    assert "must be a whole PNG" in refused(tmp_path / "bomb.png")


def test_frames_count_as_pixels(tmp_path):
    frames = [Image.new("1", (4000, 4000), number % 2) for number in range(4)]
    frames[0].save(tmp_path / "bomb.png", format="PNG", save_all=True, append_images=frames[1:])
    assert "at most 50000000 pixels" in refused(tmp_path / "bomb.png")


def test_without_pillow_png_is_refused_with_how_to_get_it_and_json_is_not(tmp_path, monkeypatch):
    png(tmp_path / "card.png", ccv3=encoded(FOREIGN))
    write_json(LUA, tmp_path / "card.json")
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "pip install 'ion-chat[cards]'" in refused(tmp_path / "card.png")
    assert read_card(tmp_path / "card.json") == LUA
    with pytest.raises(PersonaFileError, match="extra `cards`"):
        write_png(LUA, tmp_path / "out.png")
