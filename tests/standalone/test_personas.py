"""`ion personas import` and `export`, as people run them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from router_service.personas import DEFAULT_DIRECTORY, PersonaFileError, load_personas, read_persona
from standalone.personas import as_toml
from tests.standalone.command import ion, jsons

LUA = read_persona(DEFAULT_DIRECTORY / "lua.toml")
FRIEND = {
    "spec": "chara_card_v2",
    "data": {"name": "Old Friend", "description": "{{char}} knows {{user}} well.\n\nAnd says so."},
}


@pytest.fixture
def folder(tmp_path) -> Path:
    return shutil.copytree(DEFAULT_DIRECTORY, tmp_path / "files")


@pytest.fixture
def friend(tmp_path) -> Path:
    path = tmp_path / "friend.json"
    path.write_text(json.dumps(FRIEND), "utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder: Path, *arguments: str, words: str) -> None:
    before = contents(folder)
    done = ion("personas", *arguments, ION_PERSONAS_DIR=str(folder))
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert contents(folder) == before


@pytest.mark.parametrize("kind", ["json", "png"])
def test_what_is_exported_is_imported_as_it_was(folder, tmp_path, kind):
    card = tmp_path / f"lua.{kind}"
    assert ion("personas", "export", "lua", "--out", str(card)).returncode == 0
    (folder / "lua.toml").unlink()
    done = ion("personas", "import", str(card), "--into", str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"Lua is in {folder / 'lua.toml'}.\n"
    assert load_personas(folder) == load_personas(DEFAULT_DIRECTORY)
    assert '"""\nYou are Lua (루아), a mentor who listens first.' in (folder / "lua.toml").read_text("utf-8")


def test_an_imported_friend_is_listed_and_answers(folder, friend):
    env = {"ION_PERSONAS_DIR": str(folder)}
    assert ion("personas", "import", str(friend), **env).returncode == 0
    assert "Old_Friend" in [persona["name"] for persona in jsons(ion("personas", "--json", **env).stdout)]
    (answer,) = jsons(ion("chat", "--json", "--persona", "old_friend", "hello", **env).stdout)
    assert answer["persona_used"] == "Old_Friend"


def test_an_export_is_printed_where_no_file_is_named():
    card = json.loads(ion("personas", "export", "Lua").stdout)
    assert (card["spec"], card["data"]["name"]) == ("chara_card_v3", "Lua")


def test_an_export_can_have_a_picture_of_its_own(tmp_path):
    Image.new("RGB", (3, 5), "red").save(tmp_path / "face.png")
    out = tmp_path / "lua.png"
    assert ion("personas", "export", "Lua", "--out", str(out), "--image", str(tmp_path / "face.png")).returncode == 0
    with Image.open(out) as picture:
        assert (picture.size, picture.getpixel((0, 0))) == ((3, 5), (255, 0, 0))
        assert "ccv3" in picture.text


def test_a_namesake_is_replaced_only_where_asked_wherever_its_file_is(folder, friend):
    refused(folder, "import", "does-not-exist.json", words="does-not-exist.json: cannot be read")
    ion("personas", "import", str(friend), "--into", str(folder))
    (folder / "old_friend.toml").rename(folder / "companion.toml")
    friend.write_text(json.dumps(FRIEND).replace("And says so.", "And is silent."), "utf-8")
    refused(folder, "import", str(friend), words="companion.toml: is there already; --force replaces it")
    assert ion("personas", "import", str(friend), "--into", str(folder), "--force").returncode == 0
    assert "And is silent." in (folder / "companion.toml").read_text("utf-8")
    assert sorted(contents(folder)) == ["companion.toml", "elro.toml", "lua.toml", "nana.toml", "riri.toml"]


def test_nothing_is_written_where_the_personas_could_not_be_used_with_it(folder, friend, tmp_path):
    card = json.loads(ion("personas", "export", "Nana").stdout)
    card["data"]["name"] = "Nina"
    friend.write_text(json.dumps(card), "utf-8")
    refused(folder, "import", str(friend), words="apology: must be in exactly one persona file")
    friend.write_text(json.dumps(FRIEND), "utf-8")
    (folder / "lua.toml").write_text("name = ", "utf-8")
    refused(folder, "import", str(friend), words="lua.toml: must be UTF-8 TOML")
    refused(folder, "import", str(friend), "--into", str(tmp_path / "missing"), words="missing: must be a folder")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["Bob"], "must be one of Elro, Lua, Nana, Riri"),
        (["Lua", "--out", "lua.txt"], "--out=lua.txt: must end in .json or .png"),
        (["Lua", "--image", "face.png"], "--image=face.png: must be given with an --out that ends in .png"),
        (["Lua", "--out", "/does/not/exist.json"], "--out=/does/not/exist.json: cannot be written"),
        (["Lua", "--out", "lua.png", "--image", "pyproject.toml"], "pyproject.toml: must be a whole PNG"),
    ],
)
def test_exports_that_cannot_be_are_one_line(folder, arguments, words):
    refused(folder, "export", *arguments, words=words)


@pytest.mark.parametrize("command", ["import", "export"])
def test_both_have_help_with_examples(command):
    assert f"ion personas {command}" in ion("personas", command, "--help").stdout.split("Example")[1]


def test_without_the_extra_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tomli_w", None)
    with pytest.raises(PersonaFileError, match=r"pip install 'ion-chat\[cards\]'"):
        as_toml(LUA, Path("lua.toml"))
