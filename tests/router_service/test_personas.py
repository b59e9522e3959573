"""Persona files: what is read, and what is refused with which words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from router_service.analysis import INTENTS, PACES, TONES
from router_service.personas import (
    DEFAULT_DIRECTORY,
    MAX_SUMMARY_CHARACTERS,
    PersonaFileError,
    PersonaNotFound,
    load_personas,
    table_of,
)


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


def test_files_of_editors_are_not_read(folder):
    (folder / ".#lua.toml").symlink_to("somebody@somewhere:1")  # Emacs
    (folder / ".lua.toml").write_text("half", "utf-8")
    (folder / "lua.toml~").write_text("old", "utf-8")
    assert load_personas(folder).names == ("Elro", "Lua", "Nana", "Riri")


def test_what_cannot_be_read_is_refused(folder):
    (folder / "zoe.toml").mkdir()
    assert "zoe.toml: cannot be read: is a directory" in refused(folder)


def test_a_table_in_place_of_a_value_is_refused_without_naming_our_classes(folder):
    text = (folder / "riri.toml").read_text("utf-8").split("[affinity.tone]")[0]
    (folder / "riri.toml").write_text(text + "affinity = 3\n", "utf-8")
    assert "affinity = 3: must have keys and values of its own" in refused(folder)


def test_a_summary_is_one_bounded_line_with_the_name_of_the_file_alone(folder):
    edit(folder / "riri.toml", 'symbol = "📊"', f'symbol = ""\n"a\\n{"b" * 300}" = 1')
    with pytest.raises(PersonaFileError) as caught:
        load_personas(folder)
    summary = caught.value.summary
    assert summary.startswith("riri.toml: ")
    assert str(folder) not in summary
    assert len(summary.splitlines()) == 1
    assert len(summary) <= MAX_SUMMARY_CHARACTERS
    assert len(PersonaFileError(Path("x.toml"), "a\n" + "b" * 300).summary.splitlines()) == 1
    assert len(PersonaFileError(Path("x.toml"), "b" * 300).summary) == MAX_SUMMARY_CHARACTERS


def test_who_has_a_name_twice_is_said(folder):
    shutil.copy(folder / "lua.toml", folder / "copy.toml")
    assert "name: must be unique, and lua is in copy.toml, lua.toml" in refused(folder)


def test_ten_thousand_personas_are_found_by_name_and_not_all_told():
    table = load_personas(DEFAULT_DIRECTORY)
    lua, nana = table.get("Lua"), table.get("Nana")
    many = {Path(f"{number}.toml"): lua.model_copy(update={"name": f"P{number}"}) for number in range(9_999)}
    table = table_of(Path(), many | {Path("nana.toml"): nana})
    assert all(table.get(f"p{number}").name == f"P{number}" for number in range(9_999))
    assert table.affinities.shape[1] == 10_000
    with pytest.raises(PersonaNotFound, match=r"must be one of Nana, P0, P1.* and 9980 more") as caught:
        table.get("Bob")
    assert len(caught.value.message) < 300
