"""The personas in use, followed on real files."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from router_service import persona_store
from router_service.persona_store import PersonaStore
from router_service.personas import DEFAULT_DIRECTORY, PersonaFileError, read_persona

THE_FOUR = ("Elro", "Lua", "Nana", "Riri")
MINA = (DEFAULT_DIRECTORY / "lua.toml").read_text("utf-8").replace('name = "Lua"', 'name = "Mina"', 1)
WITH_MINA = ("Elro", "Lua", "Mina", "Nana", "Riri")


@pytest.fixture
def folder(tmp_path) -> Path:
    return shutil.copytree(DEFAULT_DIRECTORY, tmp_path / "files")


@pytest.fixture
async def store(folder, caplog, monkeypatch) -> AsyncIterator[PersonaStore]:
    monkeypatch.setattr(persona_store, "_LOOK_MILLISECONDS", 3_600_000)  # what is not noticed is not seen
    caplog.set_level(logging.INFO, "router_service.persona_store")
    store = PersonaStore(folder)
    async with store.watching():
        yield store


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not condition():
            await asyncio.sleep(0.005)


async def until_names(store: PersonaStore, *names: str) -> None:
    await until(lambda: store.table.names == names and not store.problem)


def lines(caplog, level: int) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


async def test_a_new_file_is_used_and_said_in_one_line(store, folder, caplog):
    before = store.table
    (folder / "mina.toml").write_text(MINA, "utf-8")
    await until_names(store, *WITH_MINA)
    assert before.names == THE_FOUR  # who holds the old table keeps it
    assert lines(caplog, logging.INFO) == ["personas in use: Elro, Lua, Mina, Nana, Riri"]


async def test_a_file_written_by_rename_is_used(store, folder):
    (folder / ".lua.toml.swp").write_text(MINA, "utf-8")
    (folder / ".lua.toml.swp").replace(folder / "lua.toml")
    await until_names(store, "Elro", "Mina", "Nana", "Riri")


async def test_a_deleted_file_is_out_of_use(store, folder):
    (folder / "lua.toml").unlink()
    await until_names(store, "Elro", "Nana", "Riri")


async def test_a_half_written_file_changes_nothing_until_it_is_whole(store, folder):
    with (folder / "mina.toml").open("w", encoding="utf-8") as file:
        file.write(MINA[:400])
        file.flush()
        await until(lambda: store.problem != "")
        assert store.table.names == THE_FOUR
        file.write(MINA[400:])
    await until_names(store, *WITH_MINA)


async def test_bad_files_keep_the_table_and_are_said_once_a_state(store, folder, caplog):
    def write(text: str) -> None:
        (folder / "mina.toml").write_text(text, "utf-8")

    before = store.table
    write(MINA.replace("calm = 0.6", "calm = 7"))
    await until(lambda: store.problem != "")
    assert store.problem == "mina.toml: affinity.tone.calm = 7: must be less than or equal to 1"
    assert store.table is before
    write(MINA.replace("calm = 0.6", "calm = 7") + "# again\n")
    (folder / "zoe.toml").write_text(MINA.replace('"Mina"', '"Zoe"'), "utf-8")  # good, but not beside a bad one
    await until(lambda: folder / "zoe.toml" in store._files._versions)  # looked at, still bad
    write(MINA.replace("playful = 1.0", "playful = 8"))
    await until(lambda: "playful" in store.problem)
    errors = lines(caplog, logging.ERROR)
    assert [("calm" in line, "playful" in line) for line in errors] == [(True, False), (False, True)]
    assert str(folder / "mina.toml") in errors[0]  # the log is for those who may know where
    write(MINA)
    await until_names(store, "Elro", "Lua", "Mina", "Nana", "Riri", "Zoe")


async def test_taking_a_bad_file_away_clears_the_problem(store, folder):
    (folder / "mina.toml").write_text("name = ", "utf-8")
    await until(lambda: store.problem != "")
    (folder / "mina.toml").unlink()
    await until_names(store, *THE_FOUR)


async def test_problems_of_the_folder_do_not_say_where_it_is(store, folder):
    shutil.copy(folder / "lua.toml", folder / "luna.toml")
    await until(lambda: store.problem != "")
    assert store.problem == "name: must be unique, and lua is in lua.toml, luna.toml"
    (folder / "luna.toml").unlink()
    await until_names(store, *THE_FOUR)
    (folder / "nana.toml").unlink()
    await until(lambda: store.problem == "apology: must be in exactly one persona file")


async def test_an_emptied_folder_keeps_the_table(store, folder):
    texts = {path: path.read_text("utf-8") for path in folder.iterdir()}
    for path in texts:
        path.unlink()
    await until(lambda: store.problem == "must have at least one persona file (*.toml)")
    assert store.table.names == THE_FOUR
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    await until_names(store, *THE_FOUR)


async def test_a_folder_that_goes_and_comes_back_is_followed_again(store, folder, monkeypatch):
    monkeypatch.setattr(persona_store, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(persona_store, "_LOOK_MILLISECONDS", 1000)  # of the watches that are set up from now on
    shutil.rmtree(folder)
    await until(lambda: store.problem != "")
    shutil.copytree(DEFAULT_DIRECTORY, folder)
    await until_names(store, *THE_FOUR)
    (folder / "mina.toml").write_text(MINA, "utf-8")
    await until_names(store, *WITH_MINA)


async def test_a_link_that_is_turned_to_another_folder_is_followed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(persona_store, "_LOOK_MILLISECONDS", 100)
    current = tmp_path / "current"
    current.symlink_to(folder)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "lua.toml").unlink()
    store = PersonaStore(current)
    async with store.watching():
        (tmp_path / "next").symlink_to(other)
        (tmp_path / "next").replace(current)
        await until_names(store, "Elro", "Nana", "Riri")
        monkeypatch.setattr(persona_store, "_LOOK_MILLISECONDS", 3_600_000)
        (other / "mina.toml").write_text(MINA, "utf-8")
        await until_names(store, "Elro", "Mina", "Nana", "Riri")


async def test_where_nothing_can_be_watched_files_are_looked_at(folder, monkeypatch, caplog):
    def no_watch(*arguments, **options):
        raise OSError(28, "inotify watch limit reached")

    monkeypatch.setattr(persona_store, "awatch", no_watch)
    monkeypatch.setattr(persona_store, "_RETRY_SECONDS", 0.01)
    store = PersonaStore(folder)
    async with store.watching():
        (folder / "mina.toml").write_text(MINA, "utf-8")
        await until_names(store, *WITH_MINA)
        (folder / "mina.toml").unlink()
        await until_names(store, *THE_FOUR)
    assert sum("cannot be watched" in line for line in lines(caplog, logging.WARNING)) == 1


async def test_what_changes_inside_the_block_is_noticed_from_its_first_moment(folder, monkeypatch):
    monkeypatch.setattr(persona_store, "_LOOK_MILLISECONDS", 3_600_000)
    store = PersonaStore(folder)
    async with store.watching():
        (folder / "mina.toml").write_text(MINA, "utf-8")
        await until_names(store, *WITH_MINA)


async def test_what_nobody_notices_is_seen_at_the_next_look(folder, monkeypatch):
    monkeypatch.setattr(persona_store, "_LOOK_MILLISECONDS", 50)
    store = PersonaStore(folder)
    (folder / "mina.toml").write_text(MINA, "utf-8")  # before anything watches
    async with store.watching():
        await until_names(store, *WITH_MINA)


async def test_only_what_changed_is_read_again_and_never_in_the_event_loop(store, folder, monkeypatch):
    reads: list[tuple[str, bool]] = []

    def read(path: Path):
        reads.append((path.name, threading.current_thread() is threading.main_thread()))
        return read_persona(path)

    monkeypatch.setattr(persona_store, "read_persona", read)
    (folder / "mina.toml").write_text(MINA, "utf-8")
    await until_names(store, *WITH_MINA)
    (folder / "lua.toml").unlink()
    await until_names(store, "Elro", "Mina", "Nana", "Riri")
    assert reads == [("mina.toml", False)]


async def test_a_new_table_comes_worked_out(store, folder):
    (folder / "mina.toml").write_text(MINA, "utf-8")
    await until_names(store, *WITH_MINA)
    assert {"affinities", "fields", "apologist"} <= vars(store.table).keys()


def test_files_that_cannot_be_used_at_the_start_are_refused(folder):
    (folder / "mina.toml").write_text("name = ", "utf-8")
    with pytest.raises(PersonaFileError, match=r"mina\.toml"):
        PersonaStore(folder)


async def test_watching_ends_with_the_block_and_by_cancellation(folder):
    store = PersonaStore(folder)
    async with store.watching():
        assert len(asyncio.all_tasks()) > 1
    assert len(asyncio.all_tasks()) == 1
    task = asyncio.create_task(store.watch())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
