"""Persona files: what is read, and what is refused with which words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from router_service.analysis import INTENTS, PACES, TONES
from router_service.personas import DEFAULT_DIRECTORY, PersonaFileError, PersonaNotFound, load_personas


@pytest.fixture
def folder(tmp_path) -> Path:
    for path in DEFAULT_DIRECTORY.glob("*.toml"):
        shutil.copy(path, tmp_path)
    return tmp_path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def refused(folder: Path) -> str:
    with pytest.raises(PersonaFileError) as caught:
        load_personas(folder)
    return str(caught.value)


def test_the_four_personas():
    table = load_personas(DEFAULT_DIRECTORY)
    assert table.names == ("Elro", "Lua", "Nana", "Riri")
    assert [persona.symbol for persona in table.personas] == ["📐", "🌊", "✒️", "📊"]
    assert table.affinities.shape == (len(TONES) + len(PACES) + len(INTENTS), 4)
    assert table.apologist.name == "Nana"
    assert "문제가 발생" in (table.apologist.apology or {})["ko"]


def test_affinities_are_those_of_the_files():
    table = load_personas(DEFAULT_DIRECTORY)
    lua = table.names.index("Lua")
    assert table.affinities[TONES.index("frustrated"), lua] == 1.0
    assert table.affinities[len(TONES) + PACES.index("medium"), lua] == 0.8
    assert table.affinities[len(TONES) + len(PACES) + INTENTS.index("statement"), lua] == 0.5


def test_weight_out_of_bounds_names_file_key_and_bounds(folder):
    edit(folder / "riri.toml", "calm = 1.0", "calm = 7")
    message = refused(folder)
    assert "riri.toml: affinity.tone.calm = 7" in message
    assert "less than or equal to 1" in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('prompt_style = "data_driven_measurable"\n', "", "prompt_style"),
        ('topics = ["data"]', 'topics = ["cooking"]', "allowed are data, code, feelings, planning"),
        (
            'preferred_tones = ["analytical", "calm", "curious"]',
            'preferred_tones = ["sleepy"]',
            "allowed are frustrated",
        ),
        ("calm = 1.0\n", "", "must have exactly the keys"),
        ('name = "Riri"', 'name = "Ri ri"', "name"),
        ('symbol = "📊"', 'symbol = "📊"\ncolour = "blue"', "colour"),
        ("temperature = 0.3", "temperature = nan", "prompt.temperature"),
        ("temperature = 0.3", 'temperature = "warm"', "prompt.temperature"),
        ('name = "Riri"', 'name = "Lua"', "must be unique"),
        ('name = "Riri"', "name = ", "must be UTF-8 TOML"),
    ],
)
def test_bad_files_are_refused_with_what_is_allowed(folder, old, new, expected):
    edit(folder / "riri.toml", old, new)
    assert expected in refused(folder)


def test_nobody_to_apologise_is_refused(folder):
    text = (folder / "nana.toml").read_text(encoding="utf-8")
    (folder / "nana.toml").write_text(text.split("[apology]")[0], encoding="utf-8")
    assert "apology: must be in exactly one" in refused(folder)


def test_empty_folder_is_refused(tmp_path):
    assert "at least one persona file" in refused(tmp_path)


def test_a_persona_of_ones_own_takes_part(folder):
    edit(folder / "lua.toml", 'name = "Lua"', 'name = "Mina"')
    assert "Mina" in load_personas(folder).names


def test_names_are_found_in_any_case_and_unknown_ones_are_answered_with_the_known():
    table = load_personas(DEFAULT_DIRECTORY)
    assert table.get(" lua ").name == "Lua"
    with pytest.raises(PersonaNotFound, match="Elro, Lua, Nana, Riri") as caught:
        table.get("Bob")
    assert "Bob" not in caught.value.message
